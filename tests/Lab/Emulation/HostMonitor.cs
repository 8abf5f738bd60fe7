using System.Net.Sockets;
using System.Text.Json;

namespace Fleet.Lab.Tests.Emulation;

/// <summary>The emulator's own monitor (QMP): pulls the host's network cable.</summary>
internal static class HostMonitor
{
    public static async Task SetLinkAsync(string qmpSocket, string device, bool up, CancellationToken cancellationToken)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(qmpSocket), cancellationToken);
        await using var stream = new NetworkStream(socket);
        using var reader = new StreamReader(stream);
        await using var writer = new StreamWriter(stream) { AutoFlush = true };
        _ = await reader.ReadLineAsync(cancellationToken);
        await ExecuteAsync("""{"execute":"qmp_capabilities"}""");
        await ExecuteAsync($$"""{"execute":"set_link","arguments":{"name":"{{device}}","up":{{(up ? "true" : "false")}} } }""");

        async Task ExecuteAsync(string command)
        {
            await writer.WriteLineAsync(command.AsMemory(), cancellationToken);
            while (true)
            {
                var line = await reader.ReadLineAsync(cancellationToken) ?? throw new IOException("the emulator closed its monitor");
                using var answer = JsonDocument.Parse(line);
                if (answer.RootElement.TryGetProperty("return", out _))
                {
                    return;
                }

                if (answer.RootElement.TryGetProperty("error", out var error))
                {
                    throw new IOException($"{command}: {error}");
                }
            }
        }
    }
}
