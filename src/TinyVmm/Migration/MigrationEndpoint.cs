using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Fleet.TinyVmm.Control;

namespace Fleet.TinyVmm.Migration;

/// <summary>Where a stream goes or comes in: <c>unix:/path</c>, or <c>tcp:127.0.0.1:port</c> on the loopback only. RAM is sent in the clear.</summary>
public sealed class MigrationEndpoint
{
    private const string Unix = "unix:";
    private const string Tcp = "tcp:";
    private const int Backlog = 4;
    private const int MaximumPathBytes = 107;

    private readonly EndPoint _endPoint;

    private MigrationEndpoint(EndPoint endPoint) => _endPoint = endPoint;

    public static bool TryParse(string? text, [NotNullWhen(true)] out MigrationEndpoint? endpoint)
    {
        endpoint = null;
        if (text is null)
        {
            return false;
        }

        if (text.StartsWith(Unix, StringComparison.Ordinal))
        {
            var path = text[Unix.Length..];
            if (path.StartsWith('/') && !path.Contains('\0', StringComparison.Ordinal) && System.Text.Encoding.UTF8.GetByteCount(path) <= MaximumPathBytes)
            {
                endpoint = new MigrationEndpoint(new UnixDomainSocketEndPoint(path));
            }
        }
        else if (text.StartsWith(Tcp, StringComparison.Ordinal)
            && text.LastIndexOf(':') is var colon && colon > Tcp.Length
            && IPAddress.TryParse(text[Tcp.Length..colon].Trim('[', ']'), out var address) && IPAddress.IsLoopback(address)
            && ushort.TryParse(text[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var port))
        {
            endpoint = new MigrationEndpoint(new IPEndPoint(address, port));
        }

        return endpoint is not null;
    }

    /// <exception cref="SocketException">The path or port is in use, or cannot be had.</exception>
    public Socket Listen()
    {
        if (_endPoint is UnixDomainSocketEndPoint)
        {
            return ControlSocket.Listen(_endPoint.ToString()!);
        }

        var listener = New();
        try
        {
            listener.Bind(_endPoint);
            listener.Listen(Backlog);
            return listener;
        }
        catch
        {
            listener.Dispose();
            throw;
        }
    }

    /// <exception cref="SocketException">Nobody listens there.</exception>
    public async Task<Socket> ConnectAsync(CancellationToken cancellationToken)
    {
        var socket = New();
        try
        {
            await socket.ConnectAsync(_endPoint, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>After the listening socket was closed: a Unix socket leaves its name behind.</summary>
    public void Remove()
    {
        if (_endPoint is UnixDomainSocketEndPoint)
        {
            File.Delete(_endPoint.ToString()!);
        }
    }

    /// <summary>The text of a listening socket's own end; names the port that was chosen when 0 was asked for.</summary>
    public static string Describe(Socket listener) =>
        listener.LocalEndPoint is IPEndPoint tcp ? $"{Tcp}{tcp}" : $"{Unix}{listener.LocalEndPoint}";

    private Socket New() => _endPoint is UnixDomainSocketEndPoint
        ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        : new Socket(_endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
}
