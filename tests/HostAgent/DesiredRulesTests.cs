using CsCheck;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Reconcile;

namespace Fleet.HostAgent.Tests;

[Trait("Invariant", "I3")]
public sealed class DesiredRulesTests
{
    [Fact]
    public void Judge_OlderGenerationEpochOrMemoryInstance_IsOlder()
    {
        var known = Vm(generation: 10, epoch: 5, memory: 3);

        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(known, Vm(generation: 9, epoch: 5, memory: 3)));
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(known, Vm(generation: 11, epoch: 4, memory: 3)));
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Judge(known, Vm(generation: 11, epoch: 5, memory: 2)));
        Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(known, Vm(generation: 10, epoch: 5, memory: 3)));
        Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(known, Vm(generation: 11, epoch: 6, memory: 4)));
    }

    [Fact]
    public void Judge_DigestOfOtherPages_IsRefetched()
    {
        var wrong = Vm(11, 5, 3, new PageKey(1, 12)) with { Pages = [new PageKey(2, 12)] };

        Assert.Equal(DesiredVerdict.Refetch, DesiredRules.Judge(null, wrong));
    }

    [Fact]
    public void Apply_NotFromTheKnownGeneration_IsRefetchedAndReplaysAreOlder()
    {
        var known = Vm(10, 5, 3, new PageKey(1, 12));

        Assert.Equal(DesiredVerdict.Refetch, DesiredRules.Apply(null, Delta(known, known)).Verdict);
        Assert.Equal(DesiredVerdict.Refetch, DesiredRules.Apply(known, Delta(Vm(9, 5, 3), Vm(12, 5, 3))).Verdict);
        Assert.Equal(DesiredVerdict.Older, DesiredRules.Apply(known, Delta(Vm(8, 5, 3), Vm(10, 5, 3))).Verdict);
        Assert.Equal(DesiredVerdict.Refetch, DesiredRules.Apply(known, Delta(known, Vm(12, 5, 3)) with { MemoryInstance = 4 }).Verdict);
    }

    [Fact]
    public void Apply_LargePageAdded_AbsorbsThoseItCovers()
    {
        var known = Vm(10, 5, 3, new PageKey(511, 12), new PageKey(512, 12), new PageKey(1023, 12), new PageKey(1024, 12));
        var next = Vm(11, 5, 3, new PageKey(511, 12), new PageKey(512, 21), new PageKey(1024, 12));
        var delta = Delta(known, next) with { Added = [new PageKey(512, 21)], Cleared = [] };

        var (verdict, result) = DesiredRules.Apply(known, delta);

        Assert.Equal(DesiredVerdict.Adopt, verdict);
        Assert.Equal(next.Pages, result!.Pages);
    }

    /// <summary>Deltas lost, repeated and out of order, whole views old and new: the set is always one that was true, and never an older one.</summary>
    [Fact]
    public void AnyInterleaving_OfDeltasAndViews_NeverGoesBackAndEndsRight() =>
        Gen.Select(
            Gen.Select(Gen.Long[0, 6], Gen.Bool).Array[1, 3].Array[1, 8],
            Gen.Select(Gen.Int[0, 2], Gen.Int[0, 7], Gen.Int[0, 7]).Array[0, 30])
        .Sample((changes, messages) =>
        {
            var history = History(changes);
            DesiredVm? known = null;
            foreach (var (kind, first, second) in messages)
            {
                var from = history[first % history.Count];
                var to = history[second % history.Count];
                var before = known?.Generation ?? 0;
                if (kind == 0)
                {
                    known = DesiredRules.Judge(known, to) == DesiredVerdict.Adopt ? to : known;
                }
                else if (to.Generation > from.Generation)
                {
                    known = DesiredRules.Apply(known, Delta(from, to)) is (DesiredVerdict.Adopt, { } result) ? result : known;
                }

                Assert.True((known?.Generation ?? 0) >= before);
                Assert.True(known is null || history.Any(vm => vm.Generation == known.Generation && vm.Pages.SequenceEqual(known.Pages)));
            }

            var newest = history[^1];
            Assert.Equal(DesiredVerdict.Adopt, DesiredRules.Judge(known, newest));
        }, iter: 2000);

    private static List<DesiredVm> History((long Frame, bool Add)[][] changes)
    {
        var history = new List<DesiredVm> { Vm(1, 1, 1) };
        foreach (var change in changes)
        {
            var pages = history[^1].Pages.ToHashSet();
            foreach (var (frame, add) in change)
            {
                _ = add ? pages.Add(new PageKey(frame, 12)) : pages.Remove(new PageKey(frame, 12));
            }

            history.Add(Vm(history[^1].Generation + 1, 1, 1, [.. pages.OrderBy(page => page.Frame)]));
        }

        return history;
    }

    private static DesiredDelta Delta(DesiredVm from, DesiredVm to) =>
        new(to.Vm, to.MemoryInstance, from.Generation, to.Generation, to.Digest, [.. to.Pages.Except(from.Pages)], [.. from.Pages.Except(to.Pages)]);

    private static DesiredVm Vm(long generation, long epoch, long memory, params PageKey[] pages) =>
        new("vm-1", "host-a", [new MemoryRegion("0x0", 1 << 26, 4096)], new VmAttach(AttachKinds.Handoff), memory, generation, epoch,
            PoisonDigest.Compute("vm-1", memory, pages), pages);
}
