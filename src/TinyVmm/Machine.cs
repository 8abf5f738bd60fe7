using Fleet.Contracts;
using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Handoff;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm;

/// <summary>One virtual machine: memory, userfaultfd, vCPU, and the way to the agent.</summary>
public sealed class Machine : IAsyncDisposable
{
    private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(1);

    // What an agent needs to trap and poison pages of shared memory. No REMOVE events: this VMM gives memory back by punching
    // holes, which leaves markers in place and raises none, and a discard would block on an agent that is away.
    private const UffdFeatures Wanted = UffdFeatures.MissingShmem | UffdFeatures.MinorShmem | UffdFeatures.Poison
        | UffdFeatures.ThreadId | UffdFeatures.ExactAddress;

    private readonly string _vm;
    private readonly TimeProvider _time;
    private readonly UserfaultfdHandle _userfaultfd;
    private readonly KvmVirtualCpu _vcpu;
    private readonly CancellationTokenSource _stop = new();
    private readonly HandoffClient? _handoff;
    private readonly Task _attaching;

    /// <param name="handoffPath">The agent's socket; null to run alone.</param>
    /// <param name="log">Takes a line for a person, only when something changes.</param>
    /// <exception cref="LinuxException">See <see cref="SetupAdvice"/> for what to do about it.</exception>
    public Machine(string vm, IReadOnlyList<MemoryRange> layout, string? handoffPath, TimeProvider time, Action<string> log)
    {
        (_vm, _time, Events) = (vm, time, new EventQueue(time));
        Memory = new GuestMemory(vm, layout);
        try
        {
            _userfaultfd = CreateUserfaultfd();
            using var kvm = KvmSystem.Open();
            _vcpu = new KvmVirtualCpu(kvm, Memory, Events);
        }
        catch
        {
            _userfaultfd?.Dispose();
            Memory.Dispose();
            _stop.Dispose();
            throw;
        }

        _handoff = handoffPath is null ? null : new HandoffClient(handoffPath, new HandoffSource(vm, Memory, _userfaultfd, Events), time, log);
        _attaching = _handoff?.RunAsync(_stop.Token) ?? Task.CompletedTask;
    }

    public GuestMemory Memory { get; }

    public EventQueue Events { get; }

    public IVirtualCpu Vcpu => _vcpu;

    /// <summary>Kept open for the machine's life: were the last copy closed, trapped pages would read as zeros (I6).</summary>
    public UserfaultfdHandle Userfaultfd => _userfaultfd;

    public StatusAnswer Status() => new(
        _vm,
        Environment.ProcessId,
        Vcpu.State switch { VirtualCpuState.Paused => "paused", VirtualCpuState.Failed => "failed", _ => "running" },
        Vcpu.Failure,
        Vcpu.Kind,
        _handoff?.Attached ?? false,
        Vcpu.MachineChecks,
        Events.Pending,
        [.. Memory.Regions.Select(ToStatus)],
        Userfaultfd.Number);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _attaching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
        try
        {
            await Vcpu.StopAsync().WaitAsync(StopTimeout, _time);
        }
        catch (TimeoutException)
        {
            // Blocked on a trapped page. Closing the userfaultfd would let it go on with zeros: all stays open until the
            // process ends and takes the thread with it.
            return;
        }

        _vcpu.Dispose();
        _userfaultfd.Dispose();
        Memory.Dispose();
    }

    // Not UFFD_USER_MODE_ONLY, as root: KVM's own accesses are faults from kernel mode, and must be trapped.
    private static UserfaultfdHandle CreateUserfaultfd()
    {
        var available = UserfaultfdHandle.Probe();
        var handle = UserfaultfdHandle.Create();
        try
        {
            handle.Handshake(available & Wanted);
            return handle;
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    private static RegionStatus ToStatus(GuestRegion region) => new(
        HexAddress.Format(region.Range.GuestPhysicalAddress),
        (long)region.Range.Bytes,
        HexAddress.Format(region.HostVirtualAddress),
        (int)MemoryLayout.PageBytes,
        region.MemfdNumber);
}
