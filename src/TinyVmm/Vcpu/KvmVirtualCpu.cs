using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>The guest's only vCPU on /dev/kvm, with the thread that runs it.</summary>
public sealed partial class KvmVirtualCpu : VirtualCpu
{
    public const string KindName = "kvm";

    private readonly GuestMemory _memory;
    private readonly EventQueue _events;
    private readonly GuestProgram _program;
    private readonly KvmVm _vm;
    private readonly KvmVcpu _vcpu;
    private readonly HighMemoryWindow _window;

    /// <summary>Makes the VM around memory that holds the program, or will before the guest runs, and starts it.</summary>
    /// <exception cref="LinuxException">A KVM call failed; the message names it.</exception>
    /// <exception cref="NotSupportedException">This KVM cannot inject machine checks.</exception>
    internal KvmVirtualCpu(KvmSystem kvm, GuestMemory memory, EventQueue events, GuestProgram program, bool paused)
        : base(paused)
    {
        (_memory, _events, _program) = (memory, events, program);
        _vm = kvm.CreateVm();
        try
        {
            _vm.SetTssAddress(GuestLayout.TssAddress);
            for (var slot = 0; slot < memory.Regions.Count; slot++)
            {
                var region = memory.Regions[slot];
                _vm.SetMemoryRegion((uint)slot, region.Range.GuestPhysicalAddress, region.Range.Bytes, region.HostVirtualAddress);
            }

            _window = new HighMemoryWindow(_vm, memory, (uint)memory.Regions.Count);
            _vcpu = _vm.CreateVcpu(0, kvm.RunBytes);
            _vcpu.SetCpuid(kvm.SupportedCpuid());
            SetupMachineChecks(kvm);
            GuestBoot.SetRegisters(_vcpu, _program);

            // Nothing is blocked while the guest runs: SIGBUS and the kick signal, blocked otherwise, end KVM_RUN.
            _vcpu.SetSignalMask(0);
        }
        catch
        {
            _vcpu?.Dispose();
            _vm.Dispose();
            throw;
        }

        Start();
    }

    public override string Kind => KindName;

    protected override void Dispose(bool disposing)
    {
        _vcpu.Dispose();
        _vm.Dispose();
        base.Dispose(disposing);
    }
}
