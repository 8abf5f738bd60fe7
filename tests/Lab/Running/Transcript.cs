using System.Diagnostics;
using System.Globalization;

namespace Fleet.Lab.Tests.Running;

/// <summary>The story of a run, for people: a chapter for each scenario, a line for each step with its time.</summary>
internal sealed class Transcript
{
    private readonly string _path;
    private readonly Lock _lock = new();
    private long _chapterStart = Stopwatch.GetTimestamp();

    public Transcript(string path)
    {
        _path = path;
        File.WriteAllText(path, "# A run of the lab\n\nTimes are seconds since the chapter began; the hosts are emulated, so they measure nothing.\n");
    }

    public void Chapter(string title)
    {
        lock (_lock)
        {
            _chapterStart = Stopwatch.GetTimestamp();
            File.AppendAllText(_path, $"\n## {title}\n\n");
        }
    }

    public void Tell(string line)
    {
        lock (_lock)
        {
            var seconds = Stopwatch.GetElapsedTime(_chapterStart).TotalSeconds;
            File.AppendAllText(_path, string.Create(CultureInfo.InvariantCulture, $"- {seconds,5:0.0}  {line}\n"));
        }
    }

    /// <summary>What a program printed.</summary>
    public void Quote(string text)
    {
        lock (_lock)
        {
            File.AppendAllText(_path, $"\n```\n{text.TrimEnd()}\n```\n\n");
        }
    }
}
