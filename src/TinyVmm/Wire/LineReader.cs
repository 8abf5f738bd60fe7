using System.Buffers;
using System.IO.Pipelines;

namespace Fleet.TinyVmm.Wire;

/// <summary>Reads lines of bounded length; the line's bytes are valid until the next call.</summary>
public sealed class LineReader(Stream stream, int maximumBytes) : IAsyncDisposable
{
    private readonly PipeReader _reader = PipeReader.Create(stream, new StreamPipeReaderOptions(leaveOpen: true));

    /// <summary>The next line without its newline; null at the end of the stream (an unfinished line is dropped).</summary>
    /// <exception cref="InvalidDataException">The line is longer than allowed.</exception>
    public async ValueTask<byte[]?> ReadAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var result = await _reader.ReadAsync(cancellationToken);
            var buffer = result.Buffer;
            var newline = buffer.PositionOf((byte)'\n');
            if ((newline is { } end ? buffer.Slice(0, end) : buffer).Length > maximumBytes)
            {
                throw new InvalidDataException($"line longer than {maximumBytes} bytes");
            }

            if (newline is { } position)
            {
                var line = buffer.Slice(0, position).ToArray();
                _reader.AdvanceTo(buffer.GetPosition(1, position));
                return line;
            }

            _reader.AdvanceTo(buffer.Start, buffer.End);
            if (result.IsCompleted)
            {
                return null;
            }
        }
    }

    public ValueTask DisposeAsync() => _reader.CompleteAsync();
}
