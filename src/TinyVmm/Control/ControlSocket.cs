using System.Net.Sockets;

namespace Fleet.TinyVmm.Control;

/// <summary>Makes the listening socket of a path: replaces one that a dead process left, never one that is served.</summary>
internal static class ControlSocket
{
    private const int Backlog = 16;

    public static Socket Listen(string path)
    {
        if (File.Exists(path))
        {
            RemoveIfDead(path);
        }

        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            // Nobody can connect between bind and listen, so that the mode is right before the first client.
            listener.Bind(new UnixDomainSocketEndPoint(path));
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            listener.Listen(Backlog);
            return listener;
        }
        catch
        {
            listener.Dispose();
            throw;
        }
    }

    private static void RemoveIfDead(string path)
    {
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(path);
            return;
        }

        throw new SocketException((int)SocketError.AddressAlreadyInUse);
    }
}
