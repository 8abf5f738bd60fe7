using System.Net.Sockets;
using System.Text.Json;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Lines of a QMP connection.</summary>
internal sealed class QmpLineReader(Socket socket, int longest)
{
    private byte[] _buffer = new byte[16 * 1024];
    private int _start;
    private int _end;
    private int _searched;

    /// <returns>Null at the end of the connection.</returns>
    /// <exception cref="IOException">The line is too long, or no JSON object.</exception>
    public async Task<QmpLine?> ReadAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var at = _buffer.AsSpan(_start + _searched, _end - _start - _searched).IndexOf((byte)'\n');
            if (at >= 0)
            {
                var line = _buffer.AsMemory(_start, _searched + at);
                _start += _searched + at + 1;
                _searched = 0;
                return Parse(line.Span);
            }

            _searched = _end - _start;
            MakeRoom();
            try
            {
                var count = await socket.ReceiveAsync(_buffer.AsMemory(_end), cancellationToken);
                if (count == 0)
                {
                    return null;
                }

                _end += count;
            }
            catch (SocketException)
            {
                // QEMU ended, or closed the connection with something unread.
                return null;
            }
        }
    }

    private void MakeRoom()
    {
        if (_end < _buffer.Length)
        {
            return;
        }

        if (_start == 0 && _buffer.Length >= longest)
        {
            throw new IOException($"a line of more than {longest} bytes came from the QMP socket");
        }

        var next = _start > 0 ? _buffer : new byte[Math.Min(_buffer.Length * 2, longest)];
        _buffer.AsSpan(_start, _end - _start).CopyTo(next);
        (_buffer, _end, _start) = (next, _end - _start, 0);
    }

    private static QmpLine Parse(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, QmpJson.Default.QmpLine) ?? throw new IOException("a line from the QMP socket is no JSON object");
        }
        catch (JsonException exception)
        {
            throw new IOException("a line from the QMP socket is no JSON object", exception);
        }
    }
}
