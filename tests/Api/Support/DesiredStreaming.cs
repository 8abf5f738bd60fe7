using System.Globalization;
using Fleet.Contracts;

namespace Fleet.Api.Tests.Support;

/// <summary>An agent's desired-state stream, event by event.</summary>
public static class DesiredStreaming
{
    /// <summary>Opens the stream, and applies each event before it tells of it.</summary>
    public static async IAsyncEnumerable<(string Name, int Count)> StreamAsync(
        this TestAgent agent, DesiredView view, CancellationTokenSource stop, string? holds = null)
    {
        using var response = await agent.Client.GetAsync(
            new Uri(Routes.Desired(agent.Host, agent.Incarnation, holds), UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, stop.Token);
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType?.MediaType);
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(stop.Token));
        var count = 0;
        string? name = null, id = null;
        while (true)
        {
            string? line;
            try
            {
                line = await reader.ReadLineAsync(stop.Token);
            }
            catch (Exception exception) when (exception is OperationCanceledException or IOException)
            {
                yield break;
            }

            if (line is null)
            {
                yield break;
            }

            if (line.StartsWith("retry: ", StringComparison.Ordinal))
            {
                view.Retry = TimeSpan.FromMilliseconds(long.Parse(line[7..], CultureInfo.InvariantCulture));
            }
            else if (line.StartsWith("event: ", StringComparison.Ordinal))
            {
                name = line[7..];
            }
            else if (line.StartsWith("id: ", StringComparison.Ordinal))
            {
                id = line[4..];
            }
            else if (line.StartsWith("data: ", StringComparison.Ordinal))
            {
                view.Apply(name!, line[6..], long.Parse(id!, CultureInfo.InvariantCulture));
                yield return (name!, ++count);
            }
        }
    }

    /// <summary>Opens the stream and leaves again.</summary>
    /// <returns>The name of its first event.</returns>
    public static async Task<string> OpenStreamAsync(this TestAgent agent, string? holds = null)
    {
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await foreach (var (name, _) in agent.StreamAsync(new DesiredView(), stop, holds))
        {
            return name;
        }

        return "nothing";
    }
}
