using System.Net.Sockets;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Attach;

/// <summary>The Unix socket on which one VM's VMM hands over; mode 0600.</summary>
public sealed partial class VmmListener(string vm, string path, Func<Socket, CancellationToken, Task> serve, ILogger logger)
{
    // A VMM needs one connection, and a second while it replaces a broken one.
    private const int MostConnections = 4;

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        using var listener = Bind();
        var connections = new List<Task>();
        LogListening(vm, path);
        try
        {
            while (true)
            {
                var socket = await listener.AcceptAsync(cancellationToken);
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
            File.Delete(path);
            await Task.WhenAll(connections);
        }
    }

    private Socket Bind()
    {
        // The name appears only when the socket is private and listens. A file of that name was left by an agent that was
        // killed: only one agent uses a state folder.
        var unfinished = path + ".new";
        File.Delete(unfinished);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(unfinished));
        File.SetUnixFileMode(unfinished, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        listener.Listen(MostConnections);
        File.Move(unfinished, path, overwrite: true);
        return listener;
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
            LogFailed(exception, vm);
        }
    }

    [LoggerMessage(1221, LogLevel.Information, "VM {Vm}: waiting for its VMM on {Path}")]
    private partial void LogListening(string vm, string path);

    [LoggerMessage(1222, LogLevel.Error, "A connection of VM {Vm}'s VMM ended with a defect")]
    private partial void LogFailed(Exception exception, string vm);
}
