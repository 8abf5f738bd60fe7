using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Guest;

namespace Fleet.EndToEnd.Tests;

/// <summary>
/// A guest that reads its memory all the time while pages of it are poisoned, and judges every answer. Known data before a page is armed, a
/// machine check afterwards; in between one or the other. Zeros, or anything else, never.
/// </summary>
internal sealed class WorkingGuest : IAsyncDisposable
{
    private const uint Seed = 42;
    private readonly Lock _lock = new();
    private readonly Dictionary<long, bool> _poisoned = [];
    private readonly Random _random;
    private readonly CancellationTokenSource _stop = new();
    private Task _working = Task.CompletedTask;

    private WorkingGuest(string vm, int seed) => (Vm, _random) = (vm, new Random(seed));

    public string Vm { get; }

    public ChildProcess Process { get; private set; } = null!;

    public TinyVmmClient Client { get; private set; } = null!;

    /// <summary>Frames that the guest works on.</summary>
    public static FrameSpan Area => new(4096, 4736);

    public long Reads { get; private set; }

    /// <summary>Each is one injected machine check, and so one hit.</summary>
    public long MachineChecks { get; private set; }

    /// <summary>Frames that were asked to be poisoned.</summary>
    public IReadOnlyList<long> Poisoned
    {
        get
        {
            lock (_lock)
            {
                return [.. _poisoned.Keys];
            }
        }
    }

    public static async Task<WorkingGuest> StartAsync(LocalFleet fleet, string host, string vm, string vcpu, int seed, CancellationToken cancellationToken)
    {
        var guest = new WorkingGuest(vm, seed);
        await fleet.Client.PutVmAsync(vm, new VmRequest(host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), cancellationToken);
        (guest.Process, guest.Client) = await fleet.StartVmmAsync(vm, "64M", host, cancellationToken, new VmmStart(Vcpu: vcpu));
        await guest.AttachedAsync(cancellationToken);
        for (var frame = Area.Start; frame < Area.End; frame += 32)
        {
            await guest.Client.WriteAsync(FrameMath.AddressOf(frame), 32 * FrameMath.FrameBytes, Seed, cancellationToken);
        }

        guest._working = Task.Run(guest.WorkAsync, CancellationToken.None);
        return guest;
    }

    public Task AttachedAsync(CancellationToken cancellationToken) =>
        LocalFleet.UntilAsync(async () => (await Client.StatusAsync(cancellationToken)).Attached, $"the handoff of {Vm}", Process, cancellationToken);

    /// <summary>Frames that were not poisoned yet; from now on they may be at any time.</summary>
    public IReadOnlyList<long> Choose(int count)
    {
        lock (_lock)
        {
            var frames = new List<long>();
            while (frames.Count < count)
            {
                var frame = _random.NextInt64(Area.Start, Area.End);
                if (_poisoned.TryAdd(frame, false))
                {
                    frames.Add(frame);
                }
            }

            return frames;
        }
    }

    public static AddPagesRequest Request(IEnumerable<long> frames) =>
        new([.. frames.Select(frame => new PageReport(frame, 12, PageClasses.Srar, PageSources.Operator))], "test");

    /// <summary>The host confirmed all that was asked for: from now on none of them may ever be read.</summary>
    public void Confirm()
    {
        lock (_lock)
        {
            foreach (var frame in _poisoned.Keys.ToList())
            {
                _poisoned[frame] = true;
            }
        }
    }

    /// <summary>Throws what the guest found wrong, if it has.</summary>
    public void ThrowIfBroken()
    {
        if (_working.IsFaulted)
        {
            _working.GetAwaiter().GetResult();
        }
    }

    /// <summary>Ends the work, then looks at every frame of the area once.</summary>
    public async Task StopAndCheckAllAsync()
    {
        await StopAsync();
        for (var frame = Area.Start; frame < Area.End; frame++)
        {
            await ReadAsync(frame);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync().ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Client.DisposeAsync();
        _stop.Dispose();
    }

    private async Task StopAsync()
    {
        await _stop.CancelAsync();
        await _working;
    }

    private async Task WorkAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            // Poisoned ones as often as others, however few they are.
            var poisoned = Poisoned;
            await ReadAsync(poisoned.Count > 0 && _random.Next(2) == 0 ? poisoned[_random.Next(poisoned.Count)] : _random.NextInt64(Area.Start, Area.End));
        }
    }

    private async Task ReadAsync(long frame)
    {
        var address = FrameMath.AddressOf(frame) + 16;
        var confirmedBefore = IsConfirmed(frame) == true;
        CommandAnswer answer;
        try
        {
            answer = await Client.ReadAsync(address, CancellationToken.None);
        }
        catch (ControlException exception) when (exception.Code == ControlException.TimedOut)
        {
            // Blocked on a trapped page while there is no agent; it is carried out later, and judged at the next look.
            throw new InvalidOperationException($"{Vm}: the guest is blocked on frame {frame}: a fault that no agent answered", exception);
        }

        Reads++;
        if (answer.Outcome == CommandAnswer.MachineCheck)
        {
            MachineChecks++;
            Require(Evidence.IsMachineCheck(answer, frame) && IsConfirmed(frame) is not null, frame, answer);
        }
        else
        {
            Require(
                !confirmedBefore && HexAddress.TryParse(answer.Value, out var value) && (uint)value == GuestArithmetic.Pattern(address, Seed), frame, answer);
        }
    }

    /// <returns>Null for a page that nobody poisoned.</returns>
    private bool? IsConfirmed(long frame)
    {
        lock (_lock)
        {
            return _poisoned.TryGetValue(frame, out var confirmed) ? confirmed : null;
        }
    }

    private void Require(bool condition, long frame, CommandAnswer answer)
    {
        if (!condition)
        {
            throw new InvalidOperationException($"{Vm}, frame {frame}, confirmed: {IsConfirmed(frame)?.ToString() ?? "never poisoned"}: {Evidence.Describe(answer)}");
        }
    }
}

internal readonly record struct FrameSpan(long Start, long End);
