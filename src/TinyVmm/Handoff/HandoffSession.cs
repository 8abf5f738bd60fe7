using System.Net.Sockets;
using System.Text.Json;
using System.Threading.Channels;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Sockets;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Handoff;

/// <summary>One connection to the agent: the handoff, then events and states out, acknowledgements and orders in.</summary>
internal sealed class HandoffSession(Socket socket, HandoffSource source, TimeProvider time) : IAsyncDisposable
{
    // Between two rounds of events: what a guest does to one page meanwhile is one line, and not a flood.
    private static readonly TimeSpan Pace = TimeSpan.FromMilliseconds(50);

    // A vCPU may be blocked on a trapped page: the agent is then told that it is not out of the guest, and again once it is.
    private static readonly TimeSpan HoldPatience = TimeSpan.FromSeconds(2);

    // Only the newest state counts: an agent that does not read misses old ones.
    private readonly Channel<VmmState> _states = Channel.CreateBounded<VmmState>(new BoundedChannelOptions(64) { FullMode = BoundedChannelFullMode.DropOldest });
    private readonly SemaphoreSlim _writing = new(1);
    private readonly NetworkStream _stream = new(socket, ownsSocket: false);
    private readonly TaskCompletionSource _attached = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private EventQueue Events => source.Events;

    /// <summary>Ends when the agent closes the connection.</summary>
    /// <exception cref="InvalidDataException">The agent rejected the handoff, or broke the protocol.</exception>
    public async Task RunAsync(Action onAttached, CancellationToken cancellationToken)
    {
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        if (source.Run.HasBarrier)
        {
            // Before the handoff says the present state, so that no change after it is missed.
            source.Run.Listen(_states.Writer);
        }

        await SendHandoffAsync(cancellationToken);
        Task[] halves = [ReadAsync(onAttached, ended.Token), WriteEventsAsync(ended.Token), WriteStatesAsync(ended.Token)];
        var first = await Task.WhenAny(halves);
        await ended.CancelAsync();
        try
        {
            await Task.WhenAll(halves);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // The others were stopped because one had ended: how that ended is what counts.
            await first;
        }
    }

    public ValueTask DisposeAsync()
    {
        source.Run.Unlisten(_states.Writer);
        _writing.Dispose();
        return _stream.DisposeAsync();
    }

    private async Task SendHandoffAsync(CancellationToken cancellationToken)
    {
        var line = JsonLine.Encode(source.Message(), HandoffJson.Default.HandoffMessage);
        var sent = UnixFdSocket.Send(socket, line, source.Descriptors());
        await _stream.WriteAsync(line.AsMemory(sent), cancellationToken);
    }

    private async Task ReadAsync(Action onAttached, CancellationToken cancellationToken)
    {
        await using var lines = new LineReader(_stream, HandoffProtocol.MaximumLineBytes);
        while (await lines.ReadAsync(cancellationToken) is { } bytes)
        {
            var line = JsonSerializer.Deserialize(bytes, HandoffJson.Default.AgentLine);
            switch (line?.Type)
            {
                case AgentLine.Attached:
                    Events.Acknowledge(line.Sequence);
                    onAttached();
                    _attached.TrySetResult();
                    break;
                case AgentLine.Acknowledged:
                    Events.Acknowledge(line.Sequence);
                    break;
                case AgentLine.Rejected:
                    throw new InvalidDataException($"rejected ({line.Code}): {line.Reason}");
                case AgentLine.Run when source.Run.HasBarrier:
                    source.Run.Run(line.Sequence);
                    source.Run.Answer(_states.Writer);
                    break;
                case AgentLine.Hold when source.Run.HasBarrier:
                    await HoldAsync(line.Sequence, cancellationToken);
                    break;
                case AgentLine.Skip when source.Run.HasBarrier:
                    source.Run.Skip = FrameRanges.TryCreate(line.Frames ?? throw MalformedSkip(), out var skip) ? skip : throw MalformedSkip();
                    break;
                case AgentLine.Zap:
                    await SendAsync(JsonLine.Encode(await source.ZapAsync(line), HandoffJson.Default.VmmZapped), cancellationToken);
                    break;
                default:
                    // A newer agent may say more than this VMM knows; nothing it says can loosen a trap.
                    break;
            }
        }
    }

    private static InvalidDataException MalformedSkip() => new("skip without frames, or with ranges that are none");

    private async Task HoldAsync(long sequence, CancellationToken cancellationToken)
    {
        try
        {
            await source.Run.HoldAsync(sequence).WaitAsync(HoldPatience, time, cancellationToken);
        }
        catch (TimeoutException)
        {
            // The latch is closed all the same, and the change will be told.
        }

        source.Run.Answer(_states.Writer);
    }

    private async Task WriteEventsAsync(CancellationToken cancellationToken)
    {
        await _attached.Task.WaitAsync(cancellationToken);
        Events.Rewind();
        while (true)
        {
            while (Events.TryNext(out var next))
            {
                await SendAsync(JsonLine.Encode(next, HandoffJson.Default.VmmEvent), cancellationToken);
            }

            await Task.Delay(Pace, time, cancellationToken);
            await Events.WaitAsync(cancellationToken);
        }
    }

    private async Task WriteStatesAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var state = await _states.Reader.ReadAsync(cancellationToken);
            var told = state with { LastEvent = Events.LastSequence };
            await SendAsync(JsonLine.Encode(told, HandoffJson.Default.VmmState), cancellationToken);
        }
    }

    private async Task SendAsync(byte[] line, CancellationToken cancellationToken)
    {
        await _writing.WaitAsync(cancellationToken);
        try
        {
            await _stream.WriteAsync(line, cancellationToken);
        }
        finally
        {
            _writing.Release();
        }
    }
}
