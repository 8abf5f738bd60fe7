using System.Net.Sockets;
using Fleet.HostAgent.Metrics;
using Fleet.Linux;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>The Unix socket on which one VM's VMM hands over; mode 0600. Owns the place.</summary>
public sealed partial class VmmListener(
    string vm, AllowedPlace place, Func<Socket, CancellationToken, Task> serve, RefusalLog refusals, TimeProvider time, ILogger logger)
{
    // A VMM needs one connection, and a second while it replaces a broken one.
    private const int MostConnections = 4;
    private const string Unfinished = ".new";
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    private string Path => place.Folder.PathOf(place.Name);

    /// <exception cref="IOException">The name is another program's.</exception>
    /// <exception cref="SocketException">The socket cannot be made.</exception>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        using var held = place;
        using var listener = Bind();
        var connections = new List<Task>();
        LogListening(vm, place.Text);
        try
        {
            while (true)
            {
                var socket = await AcceptAsync(listener, cancellationToken);
                connections.RemoveAll(connection => connection.IsCompleted);
                if (connections.Count >= MostConnections)
                {
                    socket.Dispose();
                    continue;
                }

                connections.Add(ServeAsync(socket, cancellationToken));
            }
        }
        catch (OperationCanceledException)
        {
            // The agent stops, or the VM no longer concerns this host.
        }
        finally
        {
            File.Delete(Path);
            await Task.WhenAll(connections);
        }
    }

    // Without a descriptor to spare none can be accepted now; the socket and the connections that are there stay.
    private async Task<Socket> AcceptAsync(Socket listener, CancellationToken cancellationToken)
    {
        for (var failing = false; ; failing = true)
        {
            try
            {
                return await listener.AcceptAsync(cancellationToken);
            }
            catch (SocketException exception)
            {
                if (!failing)
                {
                    LogNotAccepted(exception, vm);
                }

                await Task.Delay(Pause, time, cancellationToken); // allowed: pace of retries
            }
        }
    }

    private Socket Bind()
    {
        RequireFree(place.Name);
        RequireFree(place.Name + Unfinished);
        // The name appears only when the socket is private and listens.
        var unfinished = Path + Unfinished;
        File.Delete(unfinished);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            listener.Bind(new UnixDomainSocketEndPoint(unfinished));
            File.SetUnixFileMode(unfinished, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            listener.Listen(MostConnections);
            File.Move(unfinished, Path, overwrite: true);
            return listener;
        }
        catch
        {
            listener.Dispose();
            throw;
        }
    }

    // The control plane names it: a disk image or another program's socket of that name must not be replaced. A socket on which nobody
    // listens was left by an agent that was killed.
    private void RequireFree(string name)
    {
        var kind = place.Folder.KindOf(name);
        if (kind is not (FileKind.None or FileKind.Socket))
        {
            throw new IOException($"{place.Text} is there already, and is no socket but {kind}");
        }

        if (kind == FileKind.Socket && IsListening(place.Folder.PathOf(name)))
        {
            throw new IOException($"another program listens on {place.Text}");
        }
    }

    private static bool IsListening(string path)
    {
        try
        {
            using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
            probe.Connect(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException exception)
        {
            // With its backlog full it would block, and listens.
            return exception.SocketErrorCode != SocketError.ConnectionRefused;
        }
    }

    private async Task ServeAsync(Socket socket, CancellationToken cancellationToken)
    {
        try
        {
            using (socket)
            {
                await serve(socket, cancellationToken);
            }
        }
#pragma warning disable CA1031 // One connection's defect must not end the listener.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            AgentMeter.HandoffDefects.Add(1);
            refusals.Failed(vm, exception);
        }
    }

    [LoggerMessage(1221, LogLevel.Information, "VM {Vm}: waiting for its VMM on {Path}")]
    private partial void LogListening(string vm, string path);

    [LoggerMessage(2330, LogLevel.Error, "VM {Vm}: a connection of its VMM could not be accepted; it is tried again")]
    private partial void LogNotAccepted(Exception exception, string vm);
}
