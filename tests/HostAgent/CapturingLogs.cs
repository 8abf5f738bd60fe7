using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

/// <summary>Keeps the event id of every line that an agent logs.</summary>
internal sealed class CapturingLogs : ILoggerFactory, ILogger
{
    private readonly ConcurrentQueue<(int Id, string Text)> _lines = new();

    public IReadOnlyList<int> Ids => [.. _lines.Select(line => line.Id)];

    public IReadOnlyList<string> Texts => [.. _lines.Select(line => line.Text)];

    public ILogger CreateLogger(string categoryName) => this;

    public void AddProvider(ILoggerProvider provider)
    {
    }

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        _lines.Enqueue((eventId.Id, formatter(state, exception)));

    public void Dispose()
    {
    }
}
