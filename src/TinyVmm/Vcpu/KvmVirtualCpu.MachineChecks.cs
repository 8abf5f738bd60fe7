using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.Linux.Memory;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>From an access to a poisoned page to a machine check in the guest, and back to the report of its handler.</summary>
public sealed partial class KvmVirtualCpu
{
    private readonly uint[] _report = new uint[GuestPorts.MachineCheckWords];
    private int _reportWords;
    private bool _injected;

    private void SetupMachineChecks(KvmSystem kvm)
    {
        if (kvm.CheckExtension(KvmIoctl.KVM_CAP_MCE) <= GuestProgram.Bank)
        {
            throw new NotSupportedException($"this KVM cannot inject machine checks into bank {GuestProgram.Bank} (KVM_CAP_MCE)");
        }

        _vcpu.SetupMachineCheck((kvm.MachineCheckCapabilities & ~MachineCheckBits.McgCapCountMask) | (GuestProgram.Bank + 1));
    }

    /// <summary>Takes the signals that ended KVM_RUN; a full KVM tells of a poisoned page in this way.</summary>
    private bool TakeSignals()
    {
        while (ThreadSignals.TryTake(OwnSignals, out var signal))
        {
            if (signal.Signal == ThreadSignals.SIGBUS && !TakeSigbus(signal))
            {
                return false;
            }
        }

        return true;
    }

    private bool TakeSigbus(SignalInfo signal)
    {
        if (_memory.GuestPhysicalAddressOf(signal.Address) is not { } guestPhysicalAddress)
        {
            return Fail($"SIGBUS (si_code {signal.Code}) outside of guest memory");
        }

        var shift = signal.AddressLsb is 21 or 30 ? signal.AddressLsb : 12;
        if (signal.Code == ThreadSignals.BUS_MCEERR_AO)
        {
            _events.AddPoison(guestPhysicalAddress, shift, "srao");
            return true;
        }

        // Without a marker it is no trap of the agent's: the host's memory itself has failed.
        if (signal.Code == ThreadSignals.BUS_MCEERR_AR && !HasPoisonMarker(signal.Address))
        {
            _events.AddPoison(guestPhysicalAddress, shift, "srar");
        }

        // The signal names the page; the guest's registers name the very address, if the fault is theirs.
        var (access, pointer) = _program.AccessOf(_vcpu.GetRegisters());
        var exact = pointer is { } used ? _window.ToGuestPhysical(used) : guestPhysicalAddress;
        return exact >> shift == guestPhysicalAddress >> shift
            ? InjectMachineCheck(exact, access)
            : InjectMachineCheck(guestPhysicalAddress, "unknown");
    }

    private bool InjectMachineCheck(ulong guestPhysicalAddress, string access)
    {
        if (guestPhysicalAddress < GuestLayout.ReservedEnd)
        {
            return Fail($"poison in the guest's own program, at 0x{guestPhysicalAddress:x}");
        }

        if (_injected)
        {
            // An access across two pages shows as two: one machine check stands for both, a second would shut the guest down.
            return _reportWords == 0 || Fail($"poison at 0x{guestPhysicalAddress:x} while a machine check was handled");
        }

        try
        {
            _vcpu.InjectMachineCheck(new KvmX86Mce
            {
                Bank = GuestProgram.Bank,
                Status = MachineCheckBits.StatusSrar,
                McgStatus = MachineCheckBits.McgRestartErrorInProgress,
                Address = guestPhysicalAddress & ~(MemoryLayout.PageBytes - 1),
                Misc = MachineCheckBits.MiscPhysicalPage(_memory.ShiftAt(guestPhysicalAddress)),
            });
        }
        catch (LinuxException exception)
        {
            return Fail($"a machine check for 0x{guestPhysicalAddress:x} could not be injected: {exception.Message}");
        }

        _injected = true;
        _reportWords = 0;
        CountMachineCheck();
        _events.AddMachineCheck(guestPhysicalAddress, access, vcpu: 0);
        return true;
    }

    private bool TakeMachineCheckWord(uint word)
    {
        if (!_injected || _reportWords == _report.Length)
        {
            return Fail("a machine check that the VMM did not inject");
        }

        _report[_reportWords++] = word;
        return true;
    }

    private MachineCheckReport? TakeReport()
    {
        if (_reportWords != _report.Length)
        {
            return null;
        }

        _injected = false;
        return new MachineCheckReport(Join(0), Join(2), Join(4), Join(6));

        ulong Join(int low) => _report[low] | ((ulong)_report[low + 1] << 32);
    }

    // In huge pages a marker and the host's own poison look the same: neither is reported as new there.
    private bool HasPoisonMarker(ulong hostVirtualAddress) =>
        _memory.GuestPhysicalAddressOf(hostVirtualAddress) is { } address && _memory.PoisonMarkers((long)(address / MemoryLayout.PageBytes), 1).Any();
}
