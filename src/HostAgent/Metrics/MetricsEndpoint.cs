using System.Net;
using System.Net.Sockets;
using System.Text;
using Fleet.HostAgent.Options;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Metrics;

/// <summary>
/// GET /metrics on loopback (Agent:Metrics). Off unless it is set: the agent is root and opens no port that nobody asked for. It reads a
/// request's first line, answers, and closes; it never stops enforcement, whatever becomes of it.
/// </summary>
public sealed partial class MetricsEndpoint(AgentGauges gauges, IOptions<AgentOptions> options, TimeProvider time, ILogger<MetricsEndpoint> logger) : BackgroundService
{
    private const int MostConnections = 8;
    private const int MostRequestBytes = 8 * 1024;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private readonly TaskCompletionSource<IPEndPoint?> _listening = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Where it listens, once it does; null when it does not.</summary>
    public Task<IPEndPoint?> ListeningAsync() => _listening.Task;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (options.Value.Metrics is not { } address)
        {
            _listening.TrySetResult(null);
            return;
        }

        using var collector = new MeterCollector(gauges);
        using var listener = new TcpListener(IPEndPoint.Parse(address));
        try
        {
            listener.Start(MostConnections);
        }
        catch (SocketException exception)
        {
            LogCannotListen(exception.Message, address);
            _listening.TrySetResult(null);
            return;
        }

        LogListening(listener.LocalEndpoint);
        _listening.TrySetResult((IPEndPoint)listener.LocalEndpoint);
        await ServeAsync(listener, collector, stoppingToken);
    }

    private async Task ServeAsync(TcpListener listener, MeterCollector collector, CancellationToken stoppingToken)
    {
        var connections = new List<Task>();
        try
        {
            while (true)
            {
                var client = await listener.AcceptSocketAsync(stoppingToken);
                connections.RemoveAll(connection => connection.IsCompleted);
                if (connections.Count >= MostConnections)
                {
                    client.Dispose();
                    continue;
                }

                connections.Add(AnswerAsync(client, collector, stoppingToken));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException)
        {
            // Stopping, or out of descriptors: the enforcement does not depend on it.
            if (exception is SocketException)
            {
                LogEnded(exception.Message);
            }
        }

        await Task.WhenAll(connections);
    }

    private async Task AnswerAsync(Socket client, MeterCollector collector, CancellationToken stoppingToken)
    {
        using var patience = new CancellationTokenSource(Patience, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, stoppingToken);
        try
        {
            using (client)
            {
                var answer = Answer(await ReadAsync(client, either.Token), collector);
                for (var sent = 0; sent < answer.Length;)
                {
                    sent += await client.SendAsync(answer.AsMemory(sent), either.Token);
                }

                client.Shutdown(SocketShutdown.Send);
            }
        }
        catch (Exception exception) when (exception is SocketException or OperationCanceledException)
        {
            // Its own loss.
        }
    }

    /// <returns>The head of the request; null where it is none.</returns>
    private static async Task<string?> ReadAsync(Socket client, CancellationToken cancellationToken)
    {
        var buffer = new byte[MostRequestBytes];
        for (var length = 0; length < buffer.Length;)
        {
            var received = await client.ReceiveAsync(buffer.AsMemory(length), cancellationToken);
            length += received;
            if (received == 0)
            {
                return null;
            }

            if (buffer.AsSpan(0, length).IndexOf("\r\n\r\n"u8) >= 0)
            {
                return Encoding.Latin1.GetString(buffer, 0, length);
            }
        }

        return null;
    }

    private static byte[] Answer(string? request, MeterCollector collector)
    {
        var (status, body) = request?.Split("\r\n", 2)[0].Split(' ') switch
        {
            ["GET", "/metrics", _] => ("200 OK", collector.Write()),
            [not "GET", "/metrics", _] => ("405 Method Not Allowed", "use GET\n"),
            [_, _, _] => ("404 Not Found", "the metrics are at /metrics\n"),
            _ => ("400 Bad Request", "not a request\n"),
        };
        var bytes = Encoding.UTF8.GetBytes(body);
        var head = $"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {bytes.Length}\r\nConnection: close\r\n\r\n";
        return [.. Encoding.ASCII.GetBytes(head), .. bytes];
    }

    [LoggerMessage(2221, LogLevel.Information, "Metrics are at http://{Address}/metrics")]
    private partial void LogListening(EndPoint address);

    [LoggerMessage(2222, LogLevel.Error, "Cannot listen on {Address} for metrics ({Problem}); enforcement goes on without them")]
    private partial void LogCannotListen(string problem, string address);

    [LoggerMessage(2223, LogLevel.Error, "No metrics any more: {Problem}; enforcement goes on without them")]
    private partial void LogEnded(string problem);
}
