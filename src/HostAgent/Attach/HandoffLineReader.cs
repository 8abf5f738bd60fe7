using System.Net.Sockets;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.Linux.Sockets;

namespace Fleet.HostAgent.Attach;

/// <summary>Lines from a VMM's socket, however the kernel splits them; descriptors are taken only with the first line.</summary>
public sealed class HandoffLineReader(Socket socket)
{
    // Most lines are short, and each VMM keeps its connection for life.
    private byte[] _buffer = new byte[4096];
    private int _start;
    private int _end;

    /// <summary>Descriptors that came with the first line; whoever reads it owns them.</summary>
    public List<FileDescriptor> Descriptors { get; } = [];

    /// <summary>The next line without its newline, valid until the next call; null at the end of the stream.</summary>
    /// <param name="descriptors">Most descriptors that may have come by the end of this line; with 0, the kernel closes any that come.</param>
    /// <exception cref="InvalidDataException">The line is too long, or more descriptors came than allowed.</exception>
    /// <exception cref="LinuxException">The connection failed.</exception>
    public async Task<ReadOnlyMemory<byte>?> ReadAsync(int descriptors, CancellationToken cancellationToken)
    {
        var scanned = 0;
        while (true)
        {
            var newline = _buffer.AsSpan(_start + scanned, _end - _start - scanned).IndexOf((byte)'\n');
            if (newline >= 0)
            {
                var line = _buffer.AsMemory(_start, scanned + newline);
                _start += scanned + newline + 1;
                return line;
            }

            scanned = _end - _start;
            MakeRoom();
            if (!await FillAsync(descriptors, cancellationToken))
            {
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

        if (_start == 0)
        {
            if (_buffer.Length >= HandoffProtocol.MaximumLineBytes)
            {
                throw new InvalidDataException($"a line is longer than {HandoffProtocol.MaximumLineBytes} bytes");
            }

            Array.Resize(ref _buffer, Math.Min(2 * _buffer.Length, HandoffProtocol.MaximumLineBytes));
            return;
        }

        _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
        (_start, _end) = (0, _end - _start);
    }

    private async Task<bool> FillAsync(int descriptors, CancellationToken cancellationToken)
    {
        while (true)
        {
            // Completes when something can be read; it is read with recvmsg, which Socket does not offer.
            await socket.ReceiveAsync(Memory<byte>.Empty, cancellationToken);
            var received = descriptors > 0
                ? UnixFdSocket.Receive(socket, _buffer.AsSpan(_end), descriptors, Descriptors)
                : UnixFdSocket.Receive(socket, _buffer.AsSpan(_end), 0, []);
            if (received >= 0)
            {
                _end += received;
                return received > 0;
            }
        }
    }
}
