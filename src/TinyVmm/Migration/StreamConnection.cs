using System.Buffers.Binary;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Fleet.TinyVmm.Migration;

/// <summary>
/// One end of a stream: bounded messages, a limit on every wait, and a running SHA-256 of what goes from source to target
/// (answers, which go the other way, are not in it).
/// </summary>
internal sealed class StreamConnection(Socket socket, TimeSpan idle, TimeProvider time) : IAsyncDisposable
{
    public static ReadOnlySpan<byte> Magic => "FLEETRAM"u8;

    private const int MaximumMessageBytes = 512 * 1024;
    private const int MaximumAnswerBytes = 4096;

    private readonly NetworkStream _stream = new(socket, ownsSocket: true);
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    public async Task WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        _hash.AppendData(bytes.Span);
        await LimitAsync(async token => await _stream.WriteAsync(bytes, token), cancellationToken);
    }

    public async Task ReadAsync(Memory<byte> bytes, CancellationToken cancellationToken)
    {
        await LimitAsync(async token => await _stream.ReadExactlyAsync(bytes, token), cancellationToken);
        _hash.AppendData(bytes.Span);
    }

    public Task WriteMessageAsync<T>(T message, JsonTypeInfo<T> type, CancellationToken cancellationToken) =>
        WriteAsync(Frame(message, type), cancellationToken);

    public async Task<T> ReadMessageAsync<T>(JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        var length = new byte[sizeof(int)];
        await ReadAsync(length, cancellationToken);
        var json = new byte[CheckLength(length, MaximumMessageBytes)];
        await ReadAsync(json, cancellationToken);
        return Parse(json, type);
    }

    public async Task WriteChecksumAsync(CancellationToken cancellationToken)
    {
        var checksum = _hash.GetCurrentHash();
        await LimitAsync(async token => await _stream.WriteAsync(checksum, token), cancellationToken);
    }

    /// <exception cref="StreamException">It is not the checksum of what was read.</exception>
    public async Task CheckChecksumAsync(CancellationToken cancellationToken)
    {
        var said = new byte[SHA256.HashSizeInBytes];
        await LimitAsync(async token => await _stream.ReadExactlyAsync(said, token), cancellationToken);
        if (!said.AsSpan().SequenceEqual(_hash.GetCurrentHash()))
        {
            throw new StreamException(StreamException.Torn, "the checksum of the stream is another");
        }
    }

    public Task AnswerAsync(StreamAnswer answer, CancellationToken cancellationToken)
    {
        var frame = Frame(answer, StreamJson.Default.StreamAnswer);
        return LimitAsync(async token => await _stream.WriteAsync(frame, token), cancellationToken);
    }

    public async Task<StreamAnswer> ReadAnswerAsync(CancellationToken cancellationToken)
    {
        var length = new byte[sizeof(int)];
        await LimitAsync(async token => await _stream.ReadExactlyAsync(length, token), cancellationToken);
        var json = new byte[CheckLength(length, MaximumAnswerBytes)];
        await LimitAsync(async token => await _stream.ReadExactlyAsync(json, token), cancellationToken);
        return Parse(json, StreamJson.Default.StreamAnswer);
    }

    public ValueTask DisposeAsync()
    {
        _hash.Dispose();
        return _stream.DisposeAsync();
    }

    private async Task LimitAsync(Func<CancellationToken, Task> transfer, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(idle, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            await transfer(either.Token);
        }
        catch (OperationCanceledException) when (limit.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new StreamException(StreamException.TimedOut, $"the peer did nothing for {idle}");
        }
        catch (Exception exception) when (exception is IOException or SocketException)
        {
            // EndOfStreamException is one of these.
            throw new StreamException(StreamException.Torn, "the peer ended the connection");
        }
    }

    private static byte[] Frame<T>(T message, JsonTypeInfo<T> type)
    {
        var json = JsonSerializer.SerializeToUtf8Bytes(message, type);
        var frame = new byte[sizeof(int) + json.Length];
        BinaryPrimitives.WriteInt32LittleEndian(frame, json.Length);
        json.CopyTo(frame, sizeof(int));
        return frame;
    }

    private static int CheckLength(ReadOnlySpan<byte> bytes, int maximum) =>
        BinaryPrimitives.ReadInt32LittleEndian(bytes) is > 0 and var length && length <= maximum
            ? length
            : throw new StreamException(StreamException.Malformed, "a message of impossible length");

    private static T Parse<T>(byte[] json, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(json, type) ?? throw new StreamException(StreamException.Malformed, "null is no message");
        }
        catch (JsonException exception)
        {
            throw new StreamException(StreamException.Malformed, exception.Message);
        }
    }
}
