using Fleet.Api.Agents.Push;
using Fleet.Contracts;
using Fleet.Data.Storage;
using Fleet.Data.Writing;

namespace Fleet.Api.Agents;

/// <summary>What happens after each commit: caches learn that they are old, waiters and streams that there is news.</summary>
public sealed class CommitFanout(DesiredIndex index, StatusBoard board, PushHub hub, StoreStartup startup) : ICommitObserver
{
    private long? _storeEpoch;

    public void Committed(long revision, IReadOnlyCollection<Touched> touched)
    {
        _storeEpoch ??= startup.StoreEpochAtStart;
        if (StoreEpochs.Of(revision) != _storeEpoch)
        {
            _storeEpoch = StoreEpochs.Of(revision);
            index.InvalidateAll();
            hub.EndAll("store-epoch");
            board.ChangedAll();
        }

        foreach (var (host, vm) in touched)
        {
            index.Invalidate(host);
            hub.MarkDirty(host, vm);
            board.Changed(host).Set();
        }

        hub.Advance(revision);
    }
}
