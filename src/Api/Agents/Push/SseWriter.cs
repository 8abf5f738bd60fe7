using System.Buffers;
using System.Buffers.Text;
using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Changes;

namespace Fleet.Api.Agents.Push;

/// <summary>Server-sent events as UTF-8 straight into the response body. One writer per stream, so events never mix.</summary>
public sealed class SseWriter(PipeWriter output) : IDisposable
{
    private static readonly JsonWriterOptions Compact = new() { SkipValidation = true };
    private readonly Utf8JsonWriter _json = new(output, Compact);

    public void Retry(TimeSpan delay)
    {
        output.Write("retry: "u8);
        WriteNumber((long)delay.TotalMilliseconds);
        output.Write("\n\n"u8);
    }

    public void Write(FeedItem item)
    {
        output.Write("event: "u8);
        foreach (var character in item.Event)
        {
            output.Write([(byte)character]);
        }

        output.Write("\nid: "u8);
        WriteNumber(item.Revision);
        output.Write("\ndata: "u8);
        _json.Reset();
        JsonSerializer.Serialize(_json, item.Data, TypeOf(item.Data));
        _json.Flush();
        output.Write("\n\n"u8);
    }

    /// <summary>Waits where the client does not read; false when it is gone.</summary>
    public async ValueTask<bool> FlushAsync(CancellationToken cancellationToken) =>
        !(await output.FlushAsync(cancellationToken)).IsCompleted;

    public void Dispose() => _json.Dispose();

    private static JsonTypeInfo TypeOf(object data) => data switch
    {
        DesiredDelta => FleetJson.Default.DesiredDelta,
        DesiredVm => FleetJson.Default.DesiredVm,
        DesiredVmRemoved => FleetJson.Default.DesiredVmRemoved,
        SnapshotBegin => FleetJson.Default.SnapshotBegin,
        SnapshotEnd => FleetJson.Default.SnapshotEnd,
        Unchanged => FleetJson.Default.Unchanged,
        Bookmark => FleetJson.Default.Bookmark,
        ChangeResource => FleetJson.Default.ChangeResource,
        _ => throw new ArgumentOutOfRangeException(nameof(data), data.GetType(), "Not an event of this stream."),
    };

    private void WriteNumber(long number)
    {
        var span = output.GetSpan(20);
        Utf8Formatter.TryFormat(number, span, out var written);
        output.Advance(written);
    }
}
