using System.Diagnostics;
using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;

namespace Fleet.HostAgent.Attach;

/// <summary>A VMM that zaps its own memory when it is told, on one handoff connection.</summary>
public sealed class VmmZapper : IZapper
{
    // A line has at most 1 MiB.
    private const int RangesPerLine = 8_000;

    // Other VMs wait meanwhile. A VMM that is slower, or hangs, is asked no more before it has answered.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly Channel<AgentLine> _lines = Channel.CreateUnbounded<AgentLine>(new UnboundedChannelOptions { SingleReader = true });
    private readonly object _lock = new();
    private long _sequence;
    private VmmZapped? _answer;
    private bool _closed;

    public bool Can(ZapMethod method)
    {
        lock (_lock)
        {
            return method != ZapMethod.PunchHole && !_closed && (_sequence == 0 || _answer?.Sequence == _sequence);
        }
    }

    public void Zap(ZapMethod method, IReadOnlyList<HostRange> ranges, ZapBudget budget)
    {
        foreach (var chunk in ranges.Chunk(RangesPerLine))
        {
            var answer = Ask(method, budget, [.. chunk.Select(range => new HandoffFrames(range.Frames.Start, range.Frames.End))]);
            if (answer.Error is { } error)
            {
                throw new LinuxException($"zap {EnforcementCell.NameOf(method)} in the VMM", Enum.TryParse<Errno>(error, out var errno) && errno != Errno.None ? errno : Errno.EIO);
            }
        }
    }

    /// <summary>
    /// What the VMM answered; one that nobody waits for any more only shows that it answers again. An answer to anything but the last line
    /// is none.
    /// </summary>
    public void Take(VmmZapped answer)
    {
        lock (_lock)
        {
            if (answer.Sequence == _sequence)
            {
                _answer = answer;
                Monitor.PulseAll(_lock);
            }
        }
    }

    /// <summary>The connection has ended: nobody waits for an answer any longer.</summary>
    public void Close()
    {
        lock (_lock)
        {
            _closed = true;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Sends what is asked until the connection ends.</summary>
    public async Task RunAsync(AgentLineWriter writer, CancellationToken cancellationToken)
    {
        await foreach (var line in _lines.Reader.ReadAllAsync(cancellationToken))
        {
            await writer.SendAsync(line, cancellationToken);
        }
    }

    private VmmZapped Ask(ZapMethod method, ZapBudget budget, IReadOnlyList<HandoffFrames> frames)
    {
        lock (_lock)
        {
            var patience = budget.Left < Patience ? budget.Left : Patience;
            if (patience <= TimeSpan.Zero || !Can(method))
            {
                throw new LinuxException("zap in the VMM", _closed ? Errno.ENOTCONN : Errno.ETIMEDOUT);
            }

            var (sequence, started) = (++_sequence, Stopwatch.GetTimestamp());
            _lines.Writer.TryWrite(new AgentLine(AgentLine.Zap, sequence, null, null, frames, EnforcementCell.NameOf(method)));
            while (!_closed && _answer?.Sequence != sequence)
            {
                // Woken or not: whatever the VMM sends, it does not get more time.
                var left = patience - Stopwatch.GetElapsedTime(started);
                if (left <= TimeSpan.Zero || !Monitor.Wait(_lock, left))
                {
                    throw new LinuxException("zap in the VMM", Errno.ETIMEDOUT);
                }
            }

            return _answer?.Sequence == sequence ? _answer : throw new LinuxException("zap in the VMM", Errno.ENOTCONN);
        }
    }
}
