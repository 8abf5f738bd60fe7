using System.Net.Sockets;
using Fleet.Linux.Interop;
using Fleet.Linux.Processes;

namespace Fleet.Linux.Sockets;

/// <summary>The process at the other end of a Unix socket, as the kernel recorded it when it connected (SO_PEERCRED, unix(7)).</summary>
public readonly record struct UnixPeer(int Pid, uint Uid, uint Gid)
{
    public static unsafe UnixPeer Of(Socket socket)
    {
        UserCredentials credentials;
        var length = (uint)sizeof(UserCredentials);
        LinuxException.Check(
            Libc.getsockopt((int)socket.Handle, Constants.SOL_SOCKET, Constants.SO_PEERCRED, &credentials, &length),
            "getsockopt SO_PEERCRED");
        return new UnixPeer(credentials.Pid, credentials.Uid, credentials.Gid);
    }

    /// <summary>
    /// A pidfd of the peer that cannot be another process (SO_PEERPIDFD, Linux 6.5). On older kernels the pid is opened, and
    /// the caller must compare what it records with what it sees later.
    /// </summary>
    /// <exception cref="LinuxException">ESRCH: the peer has ended.</exception>
    public static unsafe Pidfd OpenPidfd(Socket socket)
    {
        int fd;
        uint length = sizeof(int);
        if (Libc.getsockopt((int)socket.Handle, Constants.SOL_SOCKET, Constants.SO_PEERPIDFD, &fd, &length) == 0)
        {
            return new Pidfd(new FileDescriptor(fd));
        }

        // ENOPROTOOPT: older kernel.
        return Pidfd.Open(Of(socket).Pid);
    }
}
