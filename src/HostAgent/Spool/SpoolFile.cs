using Fleet.Linux;

namespace Fleet.HostAgent.Spool;

/// <summary>The spool's file: lines that are durable when <see cref="Append"/> returns, and a tail that a crash may have torn.</summary>
internal sealed class SpoolFile : IDisposable
{
    private readonly string _path;
    private FileStream _stream;

    public SpoolFile(string path)
    {
        _path = path;
        (_stream, Lines, Damaged) = Open(path);
    }

    /// <summary>The whole lines found when the file was opened.</summary>
    public IReadOnlyList<SpoolLine> Lines { get; }

    /// <summary>A line in the middle was not whole: the disk lost something that had been durable.</summary>
    public bool Damaged { get; }

    public long Length => _stream.Length;

    public void Append(SpoolLine line)
    {
        var before = _stream.Length;
        try
        {
            _stream.Write(line.ToBytes());
            _stream.Flush(flushToDisk: true);
        }
        catch (IOException)
        {
            // Disk full or failing: a torn line must not stand before a later whole one.
            _stream.SetLength(before);
            throw;
        }
    }

    /// <summary>Replaces the whole content by one line, atomically.</summary>
    public void Replace(SpoolLine line)
    {
        DurableFile.Write(_path, line.ToBytes());
        _stream.Dispose();
        _stream = OpenStream(_path);
        _stream.Seek(0, SeekOrigin.End);
    }

    public void Dispose() => _stream.Dispose();

    private static (FileStream Stream, List<SpoolLine> Lines, bool Damaged) Open(string path)
    {
        var content = File.Exists(path) ? File.ReadAllBytes(path) : [];
        var lines = new List<SpoolLine>();
        var damaged = false;
        var at = 0;
        var whole = 0;
        while (content.AsSpan(at).IndexOf((byte)'\n') is var length and >= 0)
        {
            if (SpoolLine.Parse(content.AsSpan(at, length)) is { } line)
            {
                lines.Add(line);
                damaged |= whole != at;
                whole = at + length + 1;
            }

            at += length + 1;
        }

        var stream = OpenStream(path);
        // What follows the last whole line was never acknowledged to anybody.
        stream.SetLength(whole);
        stream.Seek(0, SeekOrigin.End);
        return (stream, lines, damaged);
    }

    private static FileStream OpenStream(string path) => new(path, new FileStreamOptions
    {
        Mode = FileMode.OpenOrCreate,
        Access = FileAccess.Write,
        BufferSize = 0,
        UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
    });
}
