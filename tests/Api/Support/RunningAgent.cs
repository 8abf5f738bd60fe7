using System.Collections.Concurrent;
using System.Diagnostics;
using Fleet.HostAgent;
using Fleet.HostAgent.ControlPlane;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests.Support;

/// <summary>The whole host agent in this process, against a control plane that may be in this process too.</summary>
public sealed class RunningAgent : IAsyncDisposable
{
    private readonly IHost _host;

    private RunningAgent(IHost host) => _host = host;

    public ConcurrentQueue<LogLine> Logs { get; private init; } = new();

    public static async Task<RunningAgent> StartAsync(string state, Uri controlPlane, params (string Name, string? Value)[] settings)
    {
        var logs = new ConcurrentQueue<LogLine>();
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings { ContentRootPath = state });
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["Agent:Host"] = "host-a",
            ["Agent:ControlPlane"] = controlPlane.ToString(),
            ["Agent:StateFolder"] = state,
            ["Agent:LogFormat"] = "text",
        });
        builder.Configuration.AddInMemoryCollection(settings.ToDictionary(item => $"Agent:{item.Name}", item => item.Value));
        builder.AddHostAgent();
        builder.Services.AddSingleton<ILoggerProvider>(new CapturingLogs(logs, LogLevel.Trace));
        builder.Services.RemoveAll<ILoggerFactory>();
        builder.Services.AddSingleton<ILoggerFactory, LoggerFactory>();
        builder.Logging.SetMinimumLevel(LogLevel.Trace);
        var agent = new RunningAgent(builder.Build()) { Logs = logs };
        await agent._host.StartAsync(TestContext.Current.CancellationToken);
        return agent;
    }

    public T Get<T>()
        where T : notnull => _host.Services.GetRequiredService<T>();

    /// <summary>Waits until the agent has said it; the deadline only ends a test that failed.</summary>
    public async Task<LogLine> SaysAsync(int eventId)
    {
        var started = Stopwatch.GetTimestamp();
        while (true)
        {
            if (Logs.FirstOrDefault(line => line.EventId == eventId && line.Category.StartsWith("Fleet.", StringComparison.Ordinal)) is { } line)
            {
                return line;
            }

            Assert.True(
                Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60),
                $"The agent did not say {eventId} in 30 s, but:\n{string.Join('\n', Logs.Where(other => other.Level >= LogLevel.Information).Select(other => other.Text))}");
            await Task.Delay(10, TestContext.Current.CancellationToken); // allowed: polling with a deadline
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync(CancellationToken.None);
        _host.Dispose();
    }
}
