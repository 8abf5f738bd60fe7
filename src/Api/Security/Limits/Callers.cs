using System.Net;
using System.Net.Sockets;

namespace Fleet.Api.Security.Limits;

internal static class Callers
{
    /// <summary>Over a Unix socket there is no address: that is this machine too.</summary>
    public static bool IsLocal(this HttpContext http) => http.Connection.RemoteIpAddress is not { } address || IPAddress.IsLoopback(address);

    /// <summary>What a caller without a name is limited by. One customer has at least a whole /64 of IPv6 addresses.</summary>
    public static string AddressKey(this HttpContext http)
    {
        var address = http.Connection.RemoteIpAddress;
        if (address is null)
        {
            return "local";
        }

        if (address.IsIPv4MappedToIPv6)
        {
            address = address.MapToIPv4();
        }

        return address.AddressFamily == AddressFamily.InterNetworkV6
            ? $"{new IPAddress([.. address.GetAddressBytes().AsSpan(0, 8), 0, 0, 0, 0, 0, 0, 0, 0])}/64"
            : address.ToString();
    }
}
