using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.Contracts;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// QEMU's side of a QMP socket, for what TCG cannot bring about: its memory is this process's, with a userfaultfd already there, so that no
/// call need be injected.
/// </summary>
internal sealed class FakeQmp : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _stop = new();
    private readonly ulong _address;
    private readonly long _bytes;
    private readonly Task _serving;
    private volatile Socket? _client;

    /// <param name="address">Where the guest's memory is said to be.</param>
    public FakeQmp(string path, ulong address, long bytes)
    {
        (_address, _bytes) = (address, bytes);
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen(1);
        _serving = ServeAsync();
    }

    public void SendEvent(string name, string data) =>
        _client!.Send(Encoding.UTF8.GetBytes($$"""{"timestamp":{"seconds":1,"microseconds":2},"event":"{{name}}","data":{{data}}}""" + "\n"));

    /// <summary>Connections on which a command was answered.</summary>
    public int Connections { get; private set; }

    /// <summary>Ends the connection behind what was sent; the agent may connect again.</summary>
    public void Disconnect() => _client!.Shutdown(SocketShutdown.Both);

    public void Dispose()
    {
        _stop.Cancel();
        _listener.Dispose();
        _client?.Dispose();
        Assert.True(_serving.Wait(TimeSpan.FromSeconds(10))); // allowed: the end of a test
        _stop.Dispose();
    }

    private async Task ServeAsync()
    {
        try
        {
            while (true)
            {
                using var client = await _listener.AcceptAsync(_stop.Token);
                try
                {
                    await TalkAsync(client);
                }
                catch (Exception exception) when (exception is IOException or ObjectDisposedException && !_stop.IsCancellationRequested)
                {
                    // The connection ended.
                }
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException or IOException)
        {
            // The test ends.
        }
    }

    private async Task TalkAsync(Socket client)
    {
        using var reader = new StreamReader(new NetworkStream(client), Encoding.UTF8);
        await SendAsync(client, """{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10},"package":""},"capabilities":["oob"]}}""");
        while (await reader.ReadLineAsync(_stop.Token) is { } line)
        {
            using var command = JsonDocument.Parse(line);
            var execute = command.RootElement.GetProperty("execute").GetString();
            var answer = execute switch
            {
                "query-memory-size-summary" => $$"""{"base-memory":{{_bytes}},"plugged-memory":0}""",
                "human-monitor-command" => JsonSerializer.Serialize(Human(command.RootElement.GetProperty("arguments").GetProperty("command-line").GetString()!)),
                _ => "{}",
            };
            await SendAsync(client, $$"""{"return":{{answer}},"id":{{command.RootElement.GetProperty("id").GetInt64()}}}""");
            Connections += _client == client ? 0 : 1;
            _client = client;
        }
    }

    private string Human(string command) => command.StartsWith("gpa2hva 0x", StringComparison.Ordinal) && HexAddress.TryParse(command[8..], out var guest)
        ? $"Host virtual address for {command[8..]} (mem) is 0x{_address + guest:x}\r\n"
        : $"FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n  0000000000000000-{_bytes - 1:x16} (prio 0, ram): mem\r\n";

    private async Task SendAsync(Socket client, string line) => await client.SendAsync(Encoding.UTF8.GetBytes(line + "\n"), _stop.Token);
}
