using System.Globalization;
using System.Text;
using Fleet.Linux.Interop;

namespace Fleet.Linux.Tracing;

/// <summary>An instance of the tracing system (Documentation/trace/ftrace.rst, "Instances"): removed when it is disposed.</summary>
public sealed unsafe class TraceInstance : IDisposable
{
    private readonly string _folder;

    internal TraceInstance(string folder, string name) => (_folder, Name) = (folder, name);

    public string Name { get; }

    /// <param name="kibibytes">For each processor; the kernel rounds it up to its pages.</param>
    /// <exception cref="LinuxException">ENOMEM.</exception>
    public void SetBufferSize(int kibibytes) => Write("buffer_size_kb", kibibytes.ToString(CultureInfo.InvariantCulture));

    /// <summary>Wakes a reader at the first event instead of when the buffer is half full, where the kernel has the setting (4.20).</summary>
    public void WakeAtOnce()
    {
        if (File.Exists(Path.Combine(_folder, "buffer_percent")))
        {
            Write("buffer_percent", "0");
        }
    }

    /// <summary>
    /// Has the event recorded where the filter holds; an event that is recorded already changes over at once, without a gap.
    /// </summary>
    /// <param name="filter">As <c>events/SYSTEM/EVENT/filter</c> takes it, below 4096 bytes; null for every one.</param>
    /// <exception cref="LinuxException">EINVAL: the kernel does not understand the filter; ENOENT: there is no such event. It is then not recorded.</exception>
    public void Enable(TraceEvent traceEvent, string? filter)
    {
        var folder = Path.Combine("events", traceEvent.System, traceEvent.Name);
        try
        {
            // A filter of "0" is none.
            Write(Path.Combine(folder, "filter"), filter ?? "0");
        }
        catch (LinuxException)
        {
            // The kernel would go on without any filter.
            TryDisable(traceEvent);
            throw;
        }

        Write(Path.Combine(folder, "enable"), "1");
    }

    /// <exception cref="LinuxException">There is no such event.</exception>
    public void Disable(TraceEvent traceEvent) => Write(Path.Combine("events", traceEvent.System, traceEvent.Name, "enable"), "0");

    /// <exception cref="LinuxException">open(2) failed.</exception>
    public TracePipe OpenPipe() => new(Path.Combine(_folder, "trace_pipe"));

    /// <summary>Events that were recorded, and how many of them were lost before anybody read them.</summary>
    public TraceCounts Count()
    {
        var (entries, lost, read) = (0L, 0L, 0L);
        foreach (var processor in Directory.EnumerateDirectories(Path.Combine(_folder, "per_cpu")))
        {
            foreach (var line in File.ReadLines(Path.Combine(processor, "stats")))
            {
                var colon = line.IndexOf(':', StringComparison.Ordinal);
                if (colon < 0 || !long.TryParse(line.AsSpan(colon + 1).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var value))
                {
                    continue;
                }

                switch (line[..colon])
                {
                    case "entries":
                        entries += value;
                        break;
                    case "overrun" or "commit overrun" or "dropped events":
                        lost += value;
                        break;
                    case "read events":
                        read += value;
                        break;
                }
            }
        }

        return new TraceCounts(entries + lost + read, lost);
    }

    public void Dispose() => _ = Libc.rmdir(_folder);

    private void TryDisable(TraceEvent traceEvent)
    {
        try
        {
            Disable(traceEvent);
        }
        catch (LinuxException)
        {
            // There is no such event.
        }
    }

    // In one write: the kernel takes each write for a whole value.
    private void Write(string file, string value)
    {
        using var fd = FileDescriptor.OpenWrite(Path.Combine(_folder, file));
        fixed (byte* bytes = Encoding.ASCII.GetBytes(value))
        {
            LinuxException.Check(Libc.write(fd.Number, bytes, (nuint)value.Length), $"write {file}");
        }
    }
}

/// <param name="Recorded">Since the instance was made.</param>
/// <param name="Lost">Of those: overwritten, or without room.</param>
public readonly record struct TraceCounts(long Recorded, long Lost);
