using System.Net.Sockets;
using System.Text.Json;
using Fleet.Contracts.Handoff;
using Fleet.Linux.Sockets;
using Fleet.TinyVmm.Events;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Handoff;

/// <summary>One connection to the agent: the handoff, then events out and acknowledgements in.</summary>
internal sealed class HandoffSession(Socket socket, HandoffSource source, TimeProvider time) : IAsyncDisposable
{
    // Between two rounds of events: what a guest does to one page meanwhile is one line, and not a flood.
    private static readonly TimeSpan Pace = TimeSpan.FromMilliseconds(50);

    private readonly NetworkStream _stream = new(socket, ownsSocket: false);
    private readonly TaskCompletionSource _attached = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private EventQueue Events => source.Events;

    /// <summary>Ends when the agent closes the connection.</summary>
    /// <exception cref="InvalidDataException">The agent rejected the handoff, or broke the protocol.</exception>
    public async Task RunAsync(Action onAttached, CancellationToken cancellationToken)
    {
        await SendHandoffAsync(cancellationToken);
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var reading = ReadAsync(onAttached, ended.Token);
        var writing = WriteAsync(ended.Token);
        var first = await Task.WhenAny(reading, writing);
        await ended.CancelAsync();
        try
        {
            await Task.WhenAll(reading, writing);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // The other half was stopped because the first had ended: how that ended is what counts.
            await first;
        }
    }

    public ValueTask DisposeAsync() => _stream.DisposeAsync();

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
                default:
                    // A newer agent may say more than this VMM knows; nothing it says can loosen a trap.
                    break;
            }
        }
    }

    private async Task WriteAsync(CancellationToken cancellationToken)
    {
        await _attached.Task.WaitAsync(cancellationToken);
        Events.Rewind();
        while (true)
        {
            while (Events.TryNext(out var next))
            {
                await _stream.WriteAsync(JsonLine.Encode(next, HandoffJson.Default.VmmEvent), cancellationToken);
            }

            await Task.Delay(Pace, time, cancellationToken);
            await Events.WaitAsync(cancellationToken);
        }
    }
}
