namespace Fleet.Data.Writing;

/// <summary>What a commit changed for a host: what is to be sent to it of this VM may differ now.</summary>
public readonly record struct Touched(string Host, string Vm);

/// <summary>Told after each commit, in order, before the callers are answered. Must be quick and must not throw.</summary>
public interface ICommitObserver
{
    void Committed(long revision, IReadOnlyCollection<Touched> touched);
}
