using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Kvm;
using Fleet.Linux.Userfaultfd;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Handoff;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Running;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm;

/// <summary>One virtual machine: memory, userfaultfd, vCPU, and the way to the agent.</summary>
public sealed class Machine : IAsyncDisposable
{
    private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(1);

    // What an agent needs to trap and poison pages. No REMOVE events: a discard would block on an agent that is away. In shared memory
    // of 4 KiB pages markers stay in place, and elsewhere a page that lost its marker is still registered.
    private const UffdFeatures Wanted = UffdFeatures.MissingShmem | UffdFeatures.MinorShmem
        | UffdFeatures.MissingHugetlbfs | UffdFeatures.MinorHugetlbfs | UffdFeatures.Poison
        | UffdFeatures.ThreadId | UffdFeatures.ExactAddress;

    private readonly MachineOptions _options;
    private readonly TimeProvider _time;
    private readonly GuestProgram _program = new();
    private readonly StreamIdentity _identity;
    private readonly StreamLimits _limits;
    private readonly BlockingAccess _reading;
    private readonly UserfaultfdHandle _userfaultfd;
    private readonly VirtualCpu _vcpu;
    private readonly IncomingServer? _incoming;
    private readonly CancellationTokenSource _stop = new();
    private readonly HandoffClient? _handoff;
    private readonly Task[] _background;

    /// <param name="log">Takes a line for a person, only when something changes.</param>
    /// <exception cref="LinuxException">See <see cref="SetupAdvice"/> for what to do about it.</exception>
    /// <exception cref="SocketException">The endpoint for the incoming stream cannot be had.</exception>
    public Machine(MachineOptions options, TimeProvider time, Action<string> log)
    {
        (_options, _time, _limits, Events) = (options, time, options.Limits ?? StreamLimits.Default, new EventQueue(time));
        _reading = new BlockingAccess(_limits.Idle, time);
        Memory = new GuestMemory(options.Vm, options.Layout, options.Backing);
        try
        {
            _userfaultfd = CreateUserfaultfd();
            if (options.Incoming is null)
            {
                GuestBoot.LoadProgram(Memory, _program);
            }

            _vcpu = CreateVcpu();
            _identity = new StreamIdentity(options.Vm, _vcpu.Kind, _program, Memory);
            Run = new RunControl(_vcpu, options.Barrier, incoming: options.Incoming is not null, options.Unprotected);
            _incoming = options.Incoming is null ? null : new IncomingServer(options.Incoming, _identity, Memory, _vcpu, Run, _limits, time, log);
        }
        catch
        {
            // A vCPU that was made has run nothing that could block it; its thread ends at once.
            _vcpu?.StopAsync().ContinueWith(_ => _vcpu.Dispose(), TaskScheduler.Default);
            _userfaultfd?.Dispose();
            Memory.Dispose();
            _stop.Dispose();
            throw;
        }

        _handoff = options.HandoffPath is null
            ? null
            : new HandoffClient(options.HandoffPath, new HandoffSource(options.Vm, Memory, _userfaultfd, Events, Run), time, log);
        _background = [Run.RunAsync(_stop.Token), _handoff?.RunAsync(_stop.Token) ?? Task.CompletedTask];
    }

    public GuestMemory Memory { get; }

    public EventQueue Events { get; }

    public IVirtualCpu Vcpu => _vcpu;

    /// <summary>Decides whether the guest runs; nothing else may resume the vCPU.</summary>
    public RunControl Run { get; }

    /// <summary>Where a stream can come in; null when none is waited for.</summary>
    public string? IncomingAddress => _incoming?.Address;

    /// <summary>A stream was given up while it read a trapped page; no other can be sent before that page is resolved.</summary>
    public bool IsReadBlocked => _reading.IsBlocked;

    /// <summary>Ends with the command that came in with the stream, if there was one.</summary>
    public Task Carried => _incoming?.Carried ?? Task.CompletedTask;

    /// <summary>Kept open for the machine's life: were the last copy closed, trapped pages would read as zeros (I6).</summary>
    public UserfaultfdHandle Userfaultfd => _userfaultfd;

    public StatusAnswer Status()
    {
        var present = Run.Present;
        return new StatusAnswer(
            _options.Vm,
            Environment.ProcessId,
            present.State == VmmStates.Held && !Run.HasBarrier ? "paused" : present.State,
            Vcpu.Failure,
            Vcpu.Kind,
            _handoff?.Attached ?? false,
            Vcpu.MachineChecks,
            Events.Pending,
            [.. Memory.Regions.Select(ToStatus)],
            Userfaultfd.Number,
            present.StreamTarget);
    }

    /// <summary>
    /// Pauses the guest and streams its RAM and the vCPU's state to another VMM. The guest stays paused, whether it succeeds or not.
    /// </summary>
    /// <returns>Instance of the target, which has confirmed all of it.</returns>
    /// <exception cref="ControlException">Refused or failed; the target then has nothing of it.</exception>
    public async Task<string> MigrateOutAsync(MigrationEndpoint endpoint, CancellationToken cancellationToken)
    {
        string? target = null;
        var paused = Run.BeginStreamAsync();
        try
        {
            await paused.WaitAsync(_limits.Idle, _time, cancellationToken);
            Run.RefuseIfFailed();
            target = await new OutgoingStream(_identity, Memory, Vcpu, () => Run.Skip, _reading, _limits, _time).RunAsync(endpoint, cancellationToken);
            return target;
        }
        catch (StreamException exception)
        {
            throw new ControlException(exception.Code, exception.Message);
        }
        finally
        {
            Run.EndStream(target);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_background).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_incoming is not null)
        {
            await _incoming.DisposeAsync();
        }

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

        if (_reading.IsBlocked || _incoming is { IsBlocked: true })
        {
            return;
        }

        _vcpu.Dispose();
        _userfaultfd.Dispose();
        Memory.Dispose();
    }

    private VirtualCpu CreateVcpu()
    {
        var paused = _options.Barrier || _options.Incoming is not null;
        if (_options.Vcpu == SoftwareVirtualCpu.KindName)
        {
            return new SoftwareVirtualCpu(Memory, Events, _program, paused);
        }

        using var kvm = KvmSystem.Open();
        return new KvmVirtualCpu(kvm, Memory, Events, _program, paused);
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
        (int)region.PageBytes,
        region.MemfdNumber);
}
