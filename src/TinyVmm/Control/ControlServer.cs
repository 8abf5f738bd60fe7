using System.Net.Sockets;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Control;

/// <summary>The VMM's own Unix socket: mode 0600, line JSON, one answer for each request, several clients at once.</summary>
public sealed class ControlServer : IAsyncDisposable
{
    public const int MaximumLineBytes = 64 * 1024;
    public static readonly TimeSpan CommandTimeout = TimeSpan.FromSeconds(30);

    private readonly string _path;
    private readonly Socket _listener;
    private readonly ControlDispatcher _dispatcher;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _accepting;

    /// <exception cref="SocketException">The path is in use by a living VMM, too long (107 bytes), or cannot be made.</exception>
    public ControlServer(string path, Machine machine, TimeProvider time, TimeSpan? commandTimeout = null)
    {
        _path = path;
        _listener = ControlSocket.Listen(path);
        _dispatcher = new ControlDispatcher(machine, commandTimeout ?? CommandTimeout, time);
        _accepting = AcceptAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _accepting;
        File.Delete(_path);
        _dispatcher.Dispose();
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        var clients = new List<Task>();
        try
        {
            while (true)
            {
                clients.RemoveAll(client => client.IsCompleted);
                clients.Add(ServeAsync(await _listener.AcceptAsync(_stop.Token)));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(clients);
        }
    }

    private async Task ServeAsync(Socket client)
    {
        try
        {
            await using var stream = new NetworkStream(client, ownsSocket: true);
            await using var lines = new LineReader(stream, MaximumLineBytes);
            try
            {
                while (await lines.ReadAsync(_stop.Token) is { } line)
                {
                    await stream.WriteAsync(await _dispatcher.AnswerAsync(line, _stop.Token), _stop.Token);
                }
            }
            catch (InvalidDataException exception)
            {
                // Where the next line begins is unknown: answer, and close.
                await stream.WriteAsync(ControlDispatcher.Refuse(ControlException.BadJson, exception.Message), _stop.Token);
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or OperationCanceledException)
        {
            // The client has gone, or the VMM ends.
        }
    }
}
