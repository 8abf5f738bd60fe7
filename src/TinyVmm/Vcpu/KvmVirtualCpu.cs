using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>The guest's only vCPU on /dev/kvm, with the thread that runs it.</summary>
public sealed partial class KvmVirtualCpu : IVirtualCpu, IDisposable
{
    // A real-time signal that neither glibc (32, 33) nor the runtime (34) uses: it takes the thread out of KVM_RUN.
    private const int KickSignal = 40;

    private readonly object _gate = new();
    private readonly GuestMemory _memory;
    private readonly EventQueue _events;
    private readonly GuestProgram _program = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly KvmVm _vm;
    private readonly KvmVcpu _vcpu;
    private readonly HighMemoryWindow _window;
    private TaskCompletionSource _parkedSignal = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private CommandRun? _command;
    private bool _pauseRequested;
    private bool _stopRequested;
    private bool _parked;
    private string? _failure;
    private int _thread;

    /// <summary>Makes the VM, loads the guest's program into its memory, and starts it.</summary>
    /// <exception cref="LinuxException">A KVM call failed; the message names it.</exception>
    /// <exception cref="NotSupportedException">This KVM cannot inject machine checks.</exception>
    public KvmVirtualCpu(KvmSystem kvm, GuestMemory memory, EventQueue events)
    {
        _memory = memory;
        _events = events;
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
            GuestBoot.LoadProgram(memory, _program);
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

        new Thread(ThreadMain) { IsBackground = true, Name = "vcpu 0" }.Start();
    }

    public string Kind => "kvm";

    public VirtualCpuState State
    {
        get
        {
            lock (_gate)
            {
                return _failure is not null ? VirtualCpuState.Failed
                    : _parked && _pauseRequested ? VirtualCpuState.Paused
                    : VirtualCpuState.Running;
            }
        }
    }

    public string? Failure
    {
        get
        {
            lock (_gate)
            {
                return _failure;
            }
        }
    }

    public Task<GuestOutcome> ExecuteAsync(GuestCommand command)
    {
        lock (_gate)
        {
            if (_failure is not null || _stopRequested)
            {
                return Task.FromResult<GuestOutcome>(new GuestOutcome.Failed(_failure ?? "the vCPU has stopped"));
            }

            if (_command is not null)
            {
                throw new InvalidOperationException("a command is under way");
            }

            _command = new CommandRun(command);
            Monitor.PulseAll(_gate);
            return _command.Completion;
        }
    }

    public Task PauseAsync()
    {
        lock (_gate)
        {
            _pauseRequested = true;
            Kick();
            return _parkedSignal.Task;
        }
    }

    public void Resume()
    {
        lock (_gate)
        {
            _pauseRequested = false;
            if (_failure is null && _parkedSignal.Task.IsCompleted)
            {
                _parkedSignal = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }

            Monitor.PulseAll(_gate);
        }
    }

    public Task StopAsync()
    {
        lock (_gate)
        {
            _stopRequested = true;
            Kick();
            return _ended.Task;
        }
    }

    /// <summary>Frees the VM; only after the task of <see cref="StopAsync"/> has ended.</summary>
    public void Dispose()
    {
        _vcpu.Dispose();
        _vm.Dispose();
    }

    // Wakes the thread if it waits here, and takes it out of KVM_RUN if it is there. The signal stays pending when it
    // comes just before KVM_RUN, which then returns at once: no request is missed.
    private void Kick()
    {
        Monitor.PulseAll(_gate);
        if (_thread != 0)
        {
            ThreadSignals.Send(_thread, KickSignal);
        }
    }
}
