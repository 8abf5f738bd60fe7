using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Fleet.Lab.Tests.Emulation;

/// <summary>What a command on a host printed, and how it ended.</summary>
internal sealed record HostCommand(int ExitCode, string Output);

/// <summary>Commands and Unix sockets of a host, through its labd (Host/labd.c).</summary>
internal sealed class HostShell(string host, int port)
{
    private const char EndMark = '\x1e';
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>Runs it with <c>sh -c</c>.</summary>
    /// <param name="patience">How long it may take; a minute when nothing is said.</param>
    /// <exception cref="IOException">The host ended first, or cannot be reached.</exception>
    /// <exception cref="TimeoutException">It took longer.</exception>
    public async Task<HostCommand> TryAsync(string command, CancellationToken cancellationToken, TimeSpan? patience = null)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(patience ?? Patience);
        try
        {
            using var socket = await OpenAsync($"run {command}", deadline.Token);
            await using var stream = new NetworkStream(socket);
            using var reader = new StreamReader(stream, Encoding.UTF8);
            var text = await reader.ReadToEndAsync(deadline.Token);
            var mark = text.LastIndexOf(EndMark);
            return mark >= 0 && text[(mark + 1)..].Split(' ') is ["exit", var code]
                ? new HostCommand(int.Parse(code, CultureInfo.InvariantCulture), text[..mark])
                : throw new IOException($"{host} ended during '{command}'");
        }
        catch (SocketException exception)
        {
            throw new IOException($"{host}: {exception.Message}", exception);
        }
        catch (OperationCanceledException exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw new TimeoutException($"{host}: '{command}' took longer than {patience ?? Patience}", exception);
        }
    }

    /// <summary>Runs what must succeed.</summary>
    /// <returns>What it printed, without the last line's end.</returns>
    public async Task<string> RunAsync(string command, CancellationToken cancellationToken)
    {
        var (code, output) = await TryAsync(command, cancellationToken);
        return code == 0 ? output.TrimEnd('\n') : throw new InvalidOperationException($"{host}: '{command}' ended with {code}: {output}");
    }

    /// <summary>Connects to a Unix socket of the host.</summary>
    /// <exception cref="IOException">Nobody listens there.</exception>
    public async Task<Socket> ConnectAsync(string path, CancellationToken cancellationToken)
    {
        var socket = await OpenAsync($"unix {path}", cancellationToken);
        try
        {
            var answer = await ReadLineAsync(socket, cancellationToken);
            return answer == "ok" ? socket : throw new IOException($"{host}: {path}: {answer}");
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private async Task<Socket> OpenAsync(string line, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
            await socket.SendAsync(Encoding.UTF8.GetBytes(line + "\n"), cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    // Byte by byte: what follows the line is not ours to take.
    private static async Task<string> ReadLineAsync(Socket socket, CancellationToken cancellationToken)
    {
        var line = new StringBuilder();
        var one = new byte[1];
        while (await socket.ReceiveAsync(one, cancellationToken) == 1 && one[0] != '\n')
        {
            line.Append((char)one[0]);
        }

        return line.ToString();
    }
}
