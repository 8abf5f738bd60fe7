using System.Net;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Startup;

/// <summary>
/// Has the kernel give a connection up whose peer has acknowledged nothing for the write deadline (TCP_USER_TIMEOUT, tcp(7)); by itself it tries
/// for about a quarter of an hour. The little that an idle stream carries never fills a buffer, so no write of this program would ever wait.
/// </summary>
public sealed class DeadPeers(IOptions<FleetOptions> fleet) : IConfigureOptions<SocketTransportOptions>
{
    // <netinet/in.h>, <linux/tcp.h>.
    internal const int IPPROTO_TCP = 6;
    internal const int TCP_USER_TIMEOUT = 18;

    public void Configure(SocketTransportOptions options) => options.CreateBoundListenSocket = endpoint =>
    {
        var socket = SocketTransportOptions.CreateDefaultBoundListenSocket(endpoint);
        if (OperatingSystem.IsLinux() && endpoint is IPEndPoint)
        {
            // Accepted connections inherit it.
            socket.SetRawSocketOption(IPPROTO_TCP, TCP_USER_TIMEOUT, BitConverter.GetBytes((int)fleet.Value.WriteDeadline.TotalMilliseconds));
        }

        return socket;
    };
}
