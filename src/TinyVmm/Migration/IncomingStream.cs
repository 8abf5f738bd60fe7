using Fleet.Contracts.Handoff;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Migration;

/// <summary>What a stream has left behind when all of it was right.</summary>
internal sealed record LoadedGuest(FrameRanges Undelivered, CarriedCommand? Command);

/// <summary>Takes the RAM of one stream, in the order of the layout. The peer is not trusted: whatever it sends, it changes only RAM.</summary>
internal sealed class IncomingStream(StreamConnection connection, GuestMemory memory, BlockingAccess access)
{
    private readonly PageWriter _writer = new(memory);
    private readonly List<HandoffFrames> _undelivered = [];

    /// <exception cref="StreamException">Something is missing, torn or impossible: RAM must be discarded.</exception>
    public async Task<LoadedGuest> LoadAsync(CancellationToken cancellationToken)
    {
        var head = new byte[StreamRecord.Bytes];
        foreach (var region in memory.Regions)
        {
            var next = (long)(region.Range.GuestPhysicalAddress / MemoryLayout.PageBytes);
            var end = (long)(region.Range.End / MemoryLayout.PageBytes);
            while (next < end)
            {
                await connection.ReadAsync(head, cancellationToken);
                var record = StreamRecord.Read(head);
                if (record.Start != next || record.Count <= 0 || record.Count > end - next)
                {
                    throw Malformed("a record is out of place");
                }

                await TakeAsync(record, cancellationToken);
                next += record.Count;
            }
        }

        await connection.ReadAsync(head, cancellationToken);
        if (StreamRecord.Read(head) != new StreamRecord(StreamRecordKind.End, 0, 0))
        {
            throw Malformed("the end is missing");
        }

        var message = await connection.ReadMessageAsync(StreamJson.Default.StreamEnd, cancellationToken);
        await connection.CheckChecksumAsync(cancellationToken);
        return Finish(message);
    }

    private async Task TakeAsync(StreamRecord record, CancellationToken cancellationToken)
    {
        switch (record.Kind)
        {
            case StreamRecordKind.Data when record.Count <= StreamRecord.MaximumDataFrames:
                var bytes = new byte[record.Count * (long)MemoryLayout.PageBytes];
                await connection.ReadAsync(bytes, cancellationToken);
                foreach (var frame in await access.RunAsync(() => _writer.Write(record.Start, bytes), cancellationToken))
                {
                    Undelivered(frame, frame + 1);
                }

                break;
            case StreamRecordKind.Zero:
                // RAM was discarded before: its pages are zero, except those that are poisoned here.
                foreach (var frame in memory.PoisonMarkers(record.Start, record.Count))
                {
                    Undelivered(frame, frame + 1);
                }

                break;
            case StreamRecordKind.Undelivered:
                Undelivered(record.Start, record.Start + record.Count);
                break;
            default:
                throw Malformed("a record of unknown kind");
        }
    }

    private void Undelivered(long start, long end)
    {
        if (_undelivered.Count > 0 && _undelivered[^1].End == start)
        {
            _undelivered[^1] = _undelivered[^1] with { End = end };
        }
        else if (_undelivered.Count < StreamLimits.MaximumUndeliveredRanges)
        {
            _undelivered.Add(new HandoffFrames(start, end));
        }
        else
        {
            throw new StreamException(StreamException.TooManyUndelivered, $"more than {StreamLimits.MaximumUndeliveredRanges} ranges were not delivered");
        }
    }

    private LoadedGuest Finish(StreamEnd message)
    {
        // Of huge pages the whole page: the agent arms no less, so that nothing of it can be served.
        if (message.Undelivered is null || !FrameRanges.TryCreate(message.Undelivered, out var late)
            || !FrameRanges.TryCreate(memory.Widen([.. _undelivered, .. memory.Clip(late)]), out var undelivered))
        {
            throw Malformed("the list of undelivered frames is none");
        }

        if (undelivered.Ranges.Length > StreamLimits.MaximumUndeliveredRanges)
        {
            throw new StreamException(StreamException.TooManyUndelivered, $"more than {StreamLimits.MaximumUndeliveredRanges} ranges were not delivered");
        }

        var command = message.Command is null ? null : Check(message.Command);

        // A page that went out before the source knew better: it must be a hole here too.
        foreach (var range in memory.Clip(undelivered))
        {
            memory.DiscardUnmarked(range);
        }

        return new LoadedGuest(undelivered, command);
    }

    private CarriedCommand Check(StreamCommand said)
    {
        var single = said.Operation is GuestOperation.Load or GuestOperation.Store;
        return Enum.IsDefined(said.Operation)
            && said.Bytes > 0 && (!single || said.Bytes == sizeof(uint))
            && (said.Address | said.Bytes | said.Done) % sizeof(uint) == 0
            && said.Done < said.Bytes
            && said.Address >= GuestLayout.ReservedEnd
            && memory.Find(said.Address, said.Bytes) is not null
            ? new CarriedCommand(new GuestCommand(said.Operation, said.Address, said.Bytes, said.Value), said.Done, said.Partial)
            : throw Malformed("the state of the vCPU is impossible");
    }

    private static StreamException Malformed(string message) => new(StreamException.Malformed, message);
}
