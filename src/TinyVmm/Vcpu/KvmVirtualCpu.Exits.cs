using Fleet.Linux.Kvm;
using Fleet.TinyVmm.Guest;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>What the guest asks of the VMM. Every method here answers false when the guest must not go on.</summary>
public sealed partial class KvmVirtualCpu
{
    private uint? _result;
    private uint _address;

    private bool HandleExit()
    {
        ref var run = ref _vcpu.State;
        switch (run.ExitReason)
        {
            case KvmRun.KVM_EXIT_IO when run is { IoSize: sizeof(uint), IoCount: 1, IoDirection: KvmRun.KVM_EXIT_IO_IN }:
                return In((byte)run.IoPort, ref _vcpu.IoData);
            case KvmRun.KVM_EXIT_IO when run is { IoSize: sizeof(uint), IoCount: 1 }:
                return Out((byte)run.IoPort, _vcpu.IoData);
            case KvmRun.KVM_EXIT_MMIO:
                return MemoryAccess(run.MmioPhysicalAddress, run.MmioIsWrite != 0, ref run.MmioData);
            case KvmRun.KVM_EXIT_SHUTDOWN:
                return Fail("the guest shut down (triple fault)");
            case KvmRun.KVM_EXIT_INTERNAL_ERROR:
                return Fail($"KVM internal error, suberror {run.InternalSuberror}, at {Where()}");
            case KvmRun.KVM_EXIT_FAIL_ENTRY:
                return Fail($"KVM could not enter the guest: hardware reason 0x{run.HardwareEntryFailureReason:x}");
            default:
                return Fail($"unexpected KVM exit {run.ExitReason} at {Where()}");
        }
    }

    private bool In(byte port, ref uint data)
    {
        switch (port)
        {
            case GuestPorts.Operation:
                return NextOperation(ref data);
            case GuestPorts.Address:
                data = _address;
                return true;
            case GuestPorts.Count:
                data = Current.Count;
                return true;
            case GuestPorts.Value:
                data = Current.Value;
                return true;
            case GuestPorts.Key:
                data = Current.Key;
                return true;
            default:
                return Fail($"the guest read from unknown port 0x{port:x}");
        }
    }

    private bool Out(byte port, uint data)
    {
        switch (port)
        {
            case GuestPorts.MachineCheck:
                return TakeMachineCheckWord(data);
            case GuestPorts.Result when !_injected:
                _result = data;
                return true;
            case GuestPorts.Result:
                // The access that was to be abandoned has come to an end: what it read must not be seen.
                return Fail("the guest went on after a machine check without handling it");
            default:
                return Fail($"the guest wrote to unknown port 0x{port:x}");
        }
    }

    // The guest is back at its start: it has answered the piece before, if there was one, and waits for the next.
    private bool NextOperation(ref uint data)
    {
        if (_injected)
        {
            if (TakeReport() is not { } report)
            {
                return Fail("the guest abandoned a machine check without reporting it");
            }

            CompleteCommand(new GuestOutcome.MachineCheck(report));
        }
        else if (_result is { } result)
        {
            Current.Take(result);
            _result = null;
            if (Current.Advance())
            {
                return Start(Current, ref data);
            }

            CompleteCommand(outcome: null);
        }

        _result = null;
        return WaitForCommand() is { } command && command.Advance() && Start(command, ref data);
    }

    private bool Start(CommandRun command, ref uint data)
    {
        _address = _window.Map(command.Address);
        data = command.Operation;
        return true;
    }

    // An access that KVM could not carry out: outside of RAM, or, on a KVM that emulates, on a trapped page of RAM.
    private bool MemoryAccess(ulong address, bool isWrite, ref ulong data)
    {
        data = ulong.MaxValue;
        var guestPhysicalAddress = _window.ToGuestPhysical(address);
        return _memory.Find(guestPhysicalAddress) is null || InjectMachineCheck(guestPhysicalAddress, isWrite ? "write" : "read");
    }

    private string Where() => $"0x{_vcpu.GetRegisters().Rip:x}";
}
