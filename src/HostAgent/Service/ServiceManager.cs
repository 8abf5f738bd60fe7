using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Fleet.HostAgent.Service;

/// <summary>The service manager that started this process, as sd_notify(3) and sd_watchdog_enabled(3) describe it.</summary>
/// <param name="NotifySocket">Where it listens: a path, or with '@' first a name in the abstract namespace. Null: there is none.</param>
/// <param name="Watchdog">It restarts the agent when it hears nothing for so long. Null: it does not watch.</param>
public sealed record ServiceManager(string? NotifySocket, TimeSpan? Watchdog)
{
    public static ServiceManager FromEnvironment() => Parse(Environment.GetEnvironmentVariable, Environment.ProcessId);

    public static ServiceManager Parse(Func<string, string?> variable, int pid)
    {
        var socket = variable("NOTIFY_SOCKET");
        var isForMe = variable("WATCHDOG_PID") is not { Length: > 0 } wanted || wanted == pid.ToString(CultureInfo.InvariantCulture);
        var isWatched = long.TryParse(variable("WATCHDOG_USEC"), NumberStyles.None, CultureInfo.InvariantCulture, out var microseconds) && microseconds > 0;
        return new ServiceManager(
            socket is ['/' or '@', _, ..] ? socket : null, isForMe && isWatched ? TimeSpan.FromMicroseconds(microseconds) : null);
    }

    /// <summary>One datagram. It never waits.</summary>
    /// <param name="state">Assignments, one a line, such as <c>READY=1</c>.</param>
    /// <returns>False when there is nobody to tell, or it could not be told.</returns>
    public bool TryNotify(string state)
    {
        if (NotifySocket is null)
        {
            return false;
        }

        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { Blocking = false };
            var address = NotifySocket[0] == '@' ? '\0' + NotifySocket[1..] : NotifySocket;
            socket.SendTo(Encoding.UTF8.GetBytes(state), new UnixDomainSocketEndPoint(address));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
