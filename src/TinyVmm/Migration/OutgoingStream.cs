using System.Net.Sockets;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Migration;

/// <summary>Streams all RAM and the vCPU's state of a paused guest to another VMM.</summary>
internal sealed class OutgoingStream(
    StreamIdentity identity, GuestMemory memory, IVirtualCpu vcpu, Func<FrameRanges> skip, BlockingAccess access, StreamLimits limits, TimeProvider time)
{
    private readonly PageReader _reader = new(memory, skip);
    private readonly List<HandoffFrames> _undelivered = [];

    /// <returns>The instance of the target, which has confirmed all of it.</returns>
    /// <exception cref="StreamException">It failed, or was refused: the target has nothing of it.</exception>
    public async Task<string> RunAsync(MigrationEndpoint endpoint, CancellationToken cancellationToken)
    {
        using var total = new CancellationTokenSource(limits.Total, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(total.Token, cancellationToken);
        try
        {
            return await StreamAsync(endpoint, either.Token);
        }
        catch (OperationCanceledException) when (total.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new StreamException(StreamException.TimedOut, $"the stream took longer than {limits.Total}");
        }
        catch (LinuxException exception)
        {
            throw new StreamException(StreamException.Memory, exception.Message);
        }
    }

    private async Task<string> StreamAsync(MigrationEndpoint endpoint, CancellationToken cancellationToken)
    {
        await using var connection = new StreamConnection(await ConnectAsync(endpoint, cancellationToken), limits.Idle, time);
        await connection.WriteAsync(StreamConnection.Magic.ToArray(), cancellationToken);
        await connection.WriteMessageAsync(identity.Header, StreamJson.Default.StreamHeader, cancellationToken);
        var instance = InstanceOf(await connection.ReadAnswerAsync(cancellationToken));
        try
        {
            await SendAsync(connection, cancellationToken);
        }
        catch (StreamException exception) when (exception.Code == StreamException.Torn)
        {
            // A target that gives up says why before it closes.
            InstanceOf(await connection.ReadAnswerAsync(cancellationToken));
            throw;
        }

        return InstanceOf(await connection.ReadAnswerAsync(cancellationToken)) == instance
            ? instance
            : throw new StreamException(StreamException.Malformed, "the target confirmed as another instance");
    }

    private async Task SendAsync(StreamConnection connection, CancellationToken cancellationToken)
    {
        foreach (var region in memory.Regions)
        {
            var start = (long)(region.Range.GuestPhysicalAddress / MemoryLayout.PageBytes);
            var end = (long)(region.Range.End / MemoryLayout.PageBytes);
            for (int count; start < end; start += count)
            {
                count = (int)Math.Min(StreamRecord.MaximumDataFrames, end - start);
                var (from, frames) = (start, count);
                var block = await access.RunAsync(() => _reader.Read(from, frames), cancellationToken);
                await connection.WriteAsync(Encode(block, start), cancellationToken);
            }
        }

        // Poison that struck while RAM was copied: its page went out before anyone knew, and must not be used.
        if (!FrameRanges.TryCreate([.. _undelivered, .. memory.Clip(skip())], out var undelivered) || undelivered.Ranges.Length > StreamLimits.MaximumUndeliveredRanges)
        {
            throw new StreamException(StreamException.TooManyUndelivered, $"more than {StreamLimits.MaximumUndeliveredRanges} ranges cannot be delivered");
        }

        var record = new byte[StreamRecord.Bytes];
        new StreamRecord(StreamRecordKind.End, 0, 0).Write(record);
        await connection.WriteAsync(record, cancellationToken);
        var command = vcpu.Save() is { } carried
            ? new StreamCommand(carried.Command.Operation, carried.Command.Address, carried.Command.Bytes, carried.Command.Value, carried.Done, carried.Partial)
            : null;
        await connection.WriteMessageAsync(new StreamEnd(undelivered.Ranges, command), StreamJson.Default.StreamEnd, cancellationToken);
        await connection.WriteChecksumAsync(cancellationToken);
    }

    // One record for each run of pages of one kind.
    private ReadOnlyMemory<byte> Encode(PageBlock block, long start)
    {
        using var encoded = new MemoryStream(block.Bytes.Length + (block.Kinds.Length * StreamRecord.Bytes));
        Span<byte> head = stackalloc byte[StreamRecord.Bytes];
        for (int first = 0, next; first < block.Kinds.Length; first = next)
        {
            var kind = block.Kinds[first];
            for (next = first + 1; next < block.Kinds.Length && block.Kinds[next] == kind; next++)
            {
            }

            new StreamRecord(kind, start + first, next - first).Write(head);
            encoded.Write(head);
            if (kind == StreamRecordKind.Data)
            {
                encoded.Write(block.Bytes, first * (int)MemoryLayout.PageBytes, (next - first) * (int)MemoryLayout.PageBytes);
            }
            else if (kind == StreamRecordKind.Undelivered)
            {
                _undelivered.Add(new HandoffFrames(start + first, start + next));
            }
        }

        return encoded.ToArray();
    }

    private async Task<Socket> ConnectAsync(MigrationEndpoint endpoint, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(limits.Idle, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            return await endpoint.ConnectAsync(either.Token);
        }
        catch (SocketException exception)
        {
            throw new StreamException(StreamException.Unreachable, exception.Message);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            throw new StreamException(StreamException.Unreachable, $"no connection within {limits.Idle}");
        }
    }

    private static string InstanceOf(StreamAnswer answer)
    {
        if (!answer.Ok)
        {
            var error = answer.Error ?? "no reason given";
            throw new StreamException(StreamException.Known(answer.Code), $"the target refused: {error[..Math.Min(error.Length, StreamLimits.MaximumText)]}");
        }

        return answer.Instance is { Length: > 0 and <= StreamLimits.MaximumText } instance
            ? instance
            : throw new StreamException(StreamException.Malformed, "the target did not say which instance it is");
    }
}
