using System.Net.Sockets;
using System.Text;
using Fleet.Contracts;

namespace Fleet.Api.Tests.Support;

/// <summary>A client that opens its desired-state stream, reads the beginning, and never reads again.</summary>
public sealed class StalledReader : IDisposable
{
    private readonly Socket _socket = new(SocketType.Stream, ProtocolType.Tcp) { ReceiveBufferSize = 4096 };

    public static async Task<StalledReader> OpenAsync(ApiHost api, TestAgent agent)
    {
        var reader = new StalledReader();
        await reader._socket.ConnectAsync(api.Url.Host, api.Url.Port);
        var request = $"GET {Routes.Desired(agent.Host, agent.Incarnation)} HTTP/1.1\r\nHost: fleet\r\nAuthorization: Bearer {agent.Credential}\r\n\r\n";
        await reader._socket.SendAsync(Encoding.ASCII.GetBytes(request));
        var read = await reader._socket.ReceiveAsync(new byte[16]);
        Assert.True(read > 0);
        return reader;
    }

    public void Dispose() => _socket.Dispose();
}
