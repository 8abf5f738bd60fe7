using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests.Support;

public sealed record LogLine(LogLevel Level, string Category, int EventId, string Text);

public sealed class CapturingLogs(ConcurrentQueue<LogLine> lines, LogLevel least = LogLevel.Information) : ILoggerProvider
{
    public ILogger CreateLogger(string categoryName) => new Logger(lines, categoryName, least);

    public void Dispose()
    {
    }

    private sealed class Logger(ConcurrentQueue<LogLine> lines, string category, LogLevel least) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= least;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel))
            {
                lines.Enqueue(new LogLine(logLevel, category, eventId.Id, formatter(state, exception) + exception));
            }
        }
    }
}
