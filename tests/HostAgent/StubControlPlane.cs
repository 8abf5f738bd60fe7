using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Fleet.Contracts;
using Fleet.Contracts.Security;

namespace Fleet.HostAgent.Tests;

/// <summary>An HTTP server on loopback that answers the agent's requests as a test has it: for what a control plane, or something in front of it, must not do.</summary>
internal sealed class StubControlPlane : IAsyncDisposable
{
    public static readonly Answer ProxyPage = new(502, "text/html; charset=windows-1252", "<html>Bad gateway</html>");
    public static readonly Answer SignInPage = new(200, "text/html", "<html>Sign in</html>");

    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly Func<string, int, Answer> _answer;
    private readonly ConcurrentDictionary<string, int> _asked = new(StringComparer.Ordinal);
    private readonly Task _serving;

    /// <param name="answer">By the route's path, and how often that was asked before.</param>
    public StubControlPlane(Func<string, int, Answer> answer)
    {
        _answer = answer;
        _listener.Start();
        _serving = ServeAsync();
    }

    public static string Claim => Routes.Claim("host-a");

    public static string Heartbeat => Routes.Heartbeat("host-a");

    public static string Reports => Routes.Reports("host-a");

    public int Asked(string path) => _asked.GetValueOrDefault(path);

    /// <summary>An agent that is enrolled here.</summary>
    public async Task<TestAgent> StartAgentAsync(string root, CapturingLogs logs)
    {
        await File.WriteAllTextAsync(Path.Combine(root, "credential"), TokenText.Create());
        return await TestAgent.StartAsync(
            root, new Dictionary<string, string?> { ["Agent:ControlPlane"] = $"http://{_listener.LocalEndpoint}" },
            services => Microsoft.Extensions.DependencyInjection.ServiceCollectionServiceExtensions.AddSingleton<Microsoft.Extensions.Logging.ILoggerFactory>(services, logs));
    }

    /// <summary>What a control plane that works says, without a stream of desired state.</summary>
    public static Answer Usual(string path) =>
        path == Claim ? new Answer(200, "application/json", """{"incarnation":1,"heartbeatInterval":"1s"}""")
        : path == Heartbeat ? new Answer(200, "application/json", """{"heartbeatInterval":"1s","refetch":[]}""")
        : path == Reports ? new Answer(200, "application/json", """{"applied":1000000,"rejected":[]}""")
        : new Answer(503, "application/problem+json", """{"code":"unavailable"}""");

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _serving;
        _listener.Dispose();
        _stop.Dispose();
    }

    private async Task ServeAsync()
    {
        var connections = new List<Task>();
        try
        {
            while (true)
            {
                connections.Add(AnswerAsync(await _listener.AcceptTcpClientAsync(_stop.Token)));
            }
        }
        catch (OperationCanceledException)
        {
            // The test ends.
        }

        await Task.WhenAll(connections);
    }

    // One request a connection.
    private async Task AnswerAsync(TcpClient client)
    {
        try
        {
            using (client)
            {
                using var reader = new StreamReader(client.GetStream(), Encoding.Latin1);
                var path = (await reader.ReadLineAsync(_stop.Token))!.Split(' ')[1].Split('?')[0];
                var hasBody = false;
                while (await reader.ReadLineAsync(_stop.Token) is { Length: > 0 } header)
                {
                    hasBody |= header.StartsWith("Transfer-Encoding: chunked", StringComparison.OrdinalIgnoreCase);
                }

                // To the empty line behind the last chunk: a connection that is closed with bytes unread is reset.
                while (hasBody && await reader.ReadLineAsync(_stop.Token) is not (null or ""))
                {
                }

                var (status, type, body) = _answer(path, _asked.AddOrUpdate(path, 1, (_, before) => before + 1) - 1);
                await client.GetStream().WriteAsync(
                    Encoding.Latin1.GetBytes($"HTTP/1.1 {status} X\r\nContent-Type: {type}\r\nContent-Length: {body.Length}\r\nConnection: close\r\n\r\n{body}"), _stop.Token);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException)
        {
            // The test or the agent ends.
        }
    }

    internal sealed record Answer(int Status, string ContentType, string Body);
}
