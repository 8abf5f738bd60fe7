namespace Fleet.HostAgent.Enforce;

/// <summary>Guest frames from <paramref name="Start"/> up to, not including, <paramref name="End"/>; 4 KiB units.</summary>
public readonly record struct FrameRange(long Start, long End)
{
    public long Frames => End - Start;

    public bool Overlaps(FrameRange other) => Start < other.End && other.Start < End;
}
