using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Enforce;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// What is said to a VMM with a barrier on one connection, and what it said last. Lines are queued, so that whoever decides never
/// waits for a VMM; each command is sent once.
/// </summary>
public sealed class VmmChannel(GuestLayout layout)
{
    private readonly Channel<AgentLine> _lines = Channel.CreateUnbounded<AgentLine>(new UnboundedChannelOptions { SingleReader = true });
    private readonly Lock _lock = new();
    private long _sequence;
    private string? _command;
    private VmmState? _state;
    private FrameSet _holes = FrameSet.Empty;
    private FrameSet? _skipped;

    /// <summary>The newest state; null before the first.</summary>
    public VmmState? State
    {
        get
        {
            lock (_lock)
            {
                return _state;
            }
        }

        set
        {
            lock (_lock)
            {
                _state = value;
                _holes = _holes.Union(InMemory(value?.Undelivered ?? []));
            }
        }
    }

    /// <summary>The holes that the stream left, as all states so far told them: they only grow in the life of a process.</summary>
    public FrameSet Holes
    {
        get
        {
            lock (_lock)
            {
                return _holes;
            }
        }
    }

    /// <summary>The last command was to hold, and the newest state is from after it was carried out.</summary>
    public bool IsLatched
    {
        get
        {
            lock (_lock)
            {
                return _command == AgentLine.Hold && _state?.Obeyed == _sequence;
            }
        }
    }

    public void Run() => Command(AgentLine.Run);

    public void Hold() => Command(AgentLine.Hold);

    /// <summary>Frames that the VMM must not read when it copies RAM out.</summary>
    public void Skip(FrameSet frames)
    {
        lock (_lock)
        {
            if (_skipped is null || !_skipped.Ranges.SequenceEqual(frames.Ranges))
            {
                _skipped = frames;
                _lines.Writer.TryWrite(new AgentLine(
                    AgentLine.Skip, 0, null, null, [.. frames.Ranges.Select(range => new HandoffFrames(range.Start, range.End))]));
            }
        }
    }

    /// <summary>Sends what is queued until the connection ends.</summary>
    public async Task RunAsync(AgentLineWriter writer, CancellationToken cancellationToken)
    {
        await foreach (var line in _lines.Reader.ReadAllAsync(cancellationToken))
        {
            await writer.SendAsync(line, cancellationToken);
        }
    }

    private FrameSet InMemory(IReadOnlyList<HandoffFrames> undelivered) => FrameSet.Of(
        FrameSet.Of(undelivered.OfType<HandoffFrames>().Select(range => new FrameRange(range.Start, range.End))).Ranges
            .SelectMany(layout.Locate)
            .Select(part => part.Frames));

    private void Command(string command)
    {
        lock (_lock)
        {
            if (_command != command)
            {
                _command = command;
                _lines.Writer.TryWrite(new AgentLine(command, ++_sequence, null, null));
            }
        }
    }
}
