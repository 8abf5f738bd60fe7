using Fleet.Linux;

namespace Fleet.HostAgent.Spool;

/// <summary>
/// The spool's file: lines that are durable when <see cref="Append"/> returns, and a tail that a crash may have torn. It is open only while
/// something is written, so that its file system can be remounted read-only, and an agent can start on one that is.
/// </summary>
internal sealed class SpoolFile
{
    private readonly string _path;

    public SpoolFile(string path)
    {
        _path = path;
        (Length, Lines, Damaged) = Read(path);
    }

    /// <summary>The whole lines found when the file was opened.</summary>
    public IReadOnlyList<SpoolLine> Lines { get; }

    /// <summary>A line in the middle was not whole: the disk lost something that had been durable.</summary>
    public bool Damaged { get; }

    /// <summary>Of the whole lines, in bytes.</summary>
    public long Length { get; private set; }

    /// <summary>The file has at least what was made durable in it.</summary>
    public bool IsWhole => new FileInfo(_path) is { Exists: true } file && file.Length >= Length;

    /// <exception cref="IOException">The disk is full, read-only or failing: the line is not in the file.</exception>
    public void Append(SpoolLine line)
    {
        var bytes = line.ToBytes();
        using var stream = OpenStream();
        try
        {
            // A torn line must not stand before a later whole one.
            stream.SetLength(Length);
            stream.Seek(0, SeekOrigin.End);
            stream.Write(bytes);
            stream.Flush(flushToDisk: true);
        }
        catch (IOException)
        {
            CutBack(stream);
            throw;
        }

        Length += bytes.Length;
    }

    /// <summary>Replaces the whole content by one line, atomically.</summary>
    /// <exception cref="IOException">The disk is full, read-only or failing: the content is what it was.</exception>
    public void Replace(SpoolLine line)
    {
        var bytes = line.ToBytes();
        DurableFile.Write(_path, bytes);
        Length = bytes.Length;
    }

    // Gives a full disk its room back at once; what is left torn is cut off before the next line all the same.
    private void CutBack(FileStream stream)
    {
        try
        {
            stream.SetLength(Length);
        }
        catch (IOException)
        {
            // The next append does it.
        }
    }

    private static (long Length, List<SpoolLine> Lines, bool Damaged) Read(string path)
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

        // What follows the last whole line was never acknowledged to anybody.
        return (whole, lines, damaged);
    }

    private FileStream OpenStream()
    {
        try
        {
            return new FileStream(_path, new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.Write,
                BufferSize = 0,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            });
        }
        catch (UnauthorizedAccessException exception)
        {
            throw new IOException(exception.Message, exception);
        }
    }
}
