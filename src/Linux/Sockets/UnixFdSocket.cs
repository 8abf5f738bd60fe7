using System.Net.Sockets;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Sockets;

/// <summary>Sends and receives descriptors over a connected Unix stream socket (SCM_RIGHTS, unix(7)).</summary>
public static unsafe class UnixFdSocket
{
    private static readonly int HeaderBytes = sizeof(ControlHeader);

    /// <summary>Sends bytes with descriptors attached to the first of them.</summary>
    /// <returns>How many bytes the kernel took; at least 1. The rest is sent without descriptors.</returns>
    /// <exception cref="LinuxException">EPIPE or ECONNRESET: the peer is gone; EAGAIN: non-blocking socket, buffer full.</exception>
    public static int Send(Socket socket, ReadOnlySpan<byte> data, ReadOnlySpan<int> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, Constants.SCM_MAX_FD);
        var controlBytes = HeaderBytes + Align(descriptors.Length * sizeof(int));
        var control = stackalloc byte[controlBytes];
        new Span<byte>(control, controlBytes).Clear();
        var header = (ControlHeader*)control;
        header->Length = (nuint)(HeaderBytes + (descriptors.Length * sizeof(int)));
        header->Level = Constants.SOL_SOCKET;
        header->Type = Constants.SCM_RIGHTS;
        descriptors.CopyTo(new Span<int>(control + HeaderBytes, descriptors.Length));

        fixed (byte* bytes = data)
        {
            var vector = new IoVector { Base = (nint)bytes, Length = (nuint)data.Length };
            var message = new MessageHeader { Vectors = (nint)(&vector), VectorCount = 1 };
            if (!descriptors.IsEmpty)
            {
                message.Control = (nint)control;
                message.ControlLength = (nuint)controlBytes;
            }

            return (int)LinuxException.Check(Libc.sendmsg((int)socket.Handle, &message, Constants.MSG_NOSIGNAL), "sendmsg");
        }
    }

    /// <summary>Receives what is there now, without blocking, and appends every descriptor that came with it to the list.</summary>
    /// <returns>Bytes received; 0 at the end of the stream; -1 when nothing is there yet.</returns>
    /// <exception cref="LinuxException">The connection failed.</exception>
    /// <exception cref="InvalidDataException">More descriptors came than fit; all of this message were closed.</exception>
    public static int Receive(Socket socket, Span<byte> buffer, int maximumDescriptors, List<FileDescriptor> descriptors)
    {
        var controlBytes = HeaderBytes + Align(Math.Max(maximumDescriptors, 1) * sizeof(int));
        var control = stackalloc byte[controlBytes];
        nint received;
        MessageHeader message;
        fixed (byte* bytes = buffer)
        {
            var vector = new IoVector { Base = (nint)bytes, Length = (nuint)buffer.Length };
            message = new MessageHeader
            {
                Vectors = (nint)(&vector),
                VectorCount = 1,
                Control = (nint)control,
                ControlLength = (nuint)controlBytes,
            };
            received = Libc.recvmsg((int)socket.Handle, &message, Constants.MSG_DONTWAIT | Constants.MSG_CMSG_CLOEXEC);
        }

        if (received < 0)
        {
            var error = LinuxException.LastError;
            return error is Errno.EAGAIN or Errno.EINTR ? -1 : throw new LinuxException("recvmsg", error);
        }

        var arrived = Collect(control, message.ControlLength);
        if ((message.Flags & Constants.MSG_CTRUNC) != 0 || descriptors.Count + arrived.Count > maximumDescriptors)
        {
            // The kernel has closed those that did not fit; the others are ours to close.
            arrived.ForEach(fd => fd.Dispose());
            throw new InvalidDataException("more descriptors than expected");
        }

        descriptors.AddRange(arrived);
        return (int)received;
    }

    private static List<FileDescriptor> Collect(byte* control, nuint length)
    {
        var found = new List<FileDescriptor>();
        nuint at = 0;
        while (at + (nuint)HeaderBytes <= length)
        {
            var header = (ControlHeader*)(control + at);
            if (header->Length < (nuint)HeaderBytes)
            {
                break;
            }

            if (header->Level == Constants.SOL_SOCKET && header->Type == Constants.SCM_RIGHTS)
            {
                var count = (int)(header->Length - (nuint)HeaderBytes) / sizeof(int);
                var numbers = (int*)(control + at + HeaderBytes);
                for (var i = 0; i < count; i++)
                {
                    found.Add(new FileDescriptor(numbers[i]));
                }
            }

            at += (nuint)Align((int)header->Length);
        }

        return found;
    }

    private static int Align(int bytes) => (bytes + 7) & ~7;
}
