using Fleet.Api.Agents.Push;
using Fleet.Data.Writing;

namespace Fleet.Api.Agents;

/// <summary>What happens after each commit: caches learn that they are old, waiters and streams that there is news.</summary>
public sealed class CommitFanout(DesiredIndex index, StatusBoard board, PushHub hub) : ICommitObserver
{
    public void Committed(long revision, IReadOnlyCollection<Touched> touched)
    {
        foreach (var (host, vm) in touched)
        {
            index.Invalidate(host);
            hub.MarkDirty(host, vm);
            board.Changed(host).Set();
        }

        hub.Advance(revision);
    }
}
