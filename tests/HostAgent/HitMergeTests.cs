using CsCheck;
using Fleet.Contracts.Hits;
using Fleet.HostAgent.Observe;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.HostAgent.Tests;

/// <summary>One access seen by two sources is one hit: the count of a page is the larger of what each of them saw.</summary>
public sealed class HitMergeTests
{
    private readonly FakeTimeProvider _time = new();

    [Fact]
    public void AccessThatBothSaw_IsOneHit_WithTheTracepointsEvidenceAndTheVmmsOutcome()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Fetch, 1, HitEvidences.KvmPageFault);

        var hit = Assert.Single(merge.Explain("vmm", Said(7, 1)));
        Assert.Equal((7L, HitAccesses.Fetch, 1, HitEvidences.KvmPageFault, HitOutcomes.MceInjected, 1L), (hit.Frame, hit.Access, hit.Vcpu, hit.Evidence, hit.Outcome, hit.Count));
        Assert.Empty(merge.TakeUnexplained(all: true));
    }

    [Fact]
    public void AccessThatOnlyTheVmmSaw_IsAsItSaid()
    {
        var merge = new HitMerge<string>(_time);
        Assert.Equal([Said(7, 3)], merge.Explain("vmm", Said(7, 3)));
        Assert.Empty(merge.TakeUnexplained(all: true));
    }

    [Fact]
    public void AccessThatOnlyTheTracepointSaw_WaitsForTheVmmsWord_ThenIsAHit()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        _time.Advance(HitMerge<string>.Patience - TimeSpan.FromMilliseconds(1));
        Assert.Empty(merge.TakeUnexplained());

        _time.Advance(TimeSpan.FromMilliseconds(1));
        var (_, hit) = Assert.Single(merge.TakeUnexplained());
        Assert.Equal((HitEvidences.KvmPageFault, HitOutcomes.Unknown, 1L), (hit.Evidence, hit.Outcome, hit.Count));
        Assert.Empty(merge.TakeUnexplained(all: true));

        // Its word comes late: the access is counted already. The next one is not.
        Assert.Empty(merge.Explain("vmm", Said(7, 1)));
        Assert.Equal([Said(7, 1)], merge.Explain("vmm", Said(7, 1)));
    }

    /// <summary>The VMM's word is always a little behind the tracepoint: what it has not spoken of yet is not what it will never speak of.</summary>
    [Fact]
    public void GuestThatTouchesThePageSteadily_WaitsForEachWord()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        for (var spoken = TimeSpan.Zero; spoken < 5 * HitMerge<string>.Patience; spoken += TimeSpan.FromMilliseconds(200))
        {
            _time.Advance(TimeSpan.FromMilliseconds(200));
            merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
            Assert.Equal(HitOutcomes.MceInjected, Assert.Single(merge.Explain("vmm", Said(7, 1))).Outcome);
            Assert.Empty(merge.TakeUnexplained());
        }

        _time.Advance(HitMerge<string>.Patience);
        Assert.Equal((HitOutcomes.Unknown, 1L), merge.TakeUnexplained().Select(taken => (taken.Access.Outcome, taken.Access.Count)).Single());
    }

    [Fact]
    public void AccessThatTheTracepointShowsAfterTheVmmsWord_IsTheSame_ForAMomentOnly()
    {
        var merge = new HitMerge<string>(_time);
        Assert.Equal([Said(7, 2)], merge.Explain("vmm", Said(7, 2)));
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        Assert.Empty(merge.TakeUnexplained(all: true));

        // The other line was lost: it must not swallow another access.
        _time.Advance(HitMerge<string>.Patience);
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        Assert.Single(merge.TakeUnexplained(all: true));
    }

    [Fact]
    public void OtherPagesAndOtherVmms_AreOtherAccesses()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        Assert.Equal([Said(8, 1)], merge.Explain("vmm", Said(8, 1)));
        Assert.Equal([Said(7, 1)], merge.Explain("other", Said(7, 1)));
        Assert.Single(merge.TakeUnexplained(all: true));
    }

    [Fact]
    public void Explain_PrefersTheSameVcpu()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Write, 0, HitEvidences.KvmPageFault);
        merge.Saw("vmm", 7, HitAccesses.Read, 1, HitEvidences.KvmPageFault);
        Assert.Equal([(HitAccesses.Read, (int?)1)], merge.Explain("vmm", Said(7, 1, vcpu: 1)).Select(hit => (hit.Access, hit.Vcpu)));
        Assert.Equal([(HitAccesses.Write, (int?)0)], merge.Explain("vmm", Said(7, 1)).Select(hit => (hit.Access, hit.Vcpu)));
    }

    [Fact]
    public void PutBack_WhatCouldNotBeStored_IsTakenAgainAndStillMergedOnce()
    {
        var merge = new HitMerge<string>(_time);
        merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
        var (vmm, hit) = Assert.Single(merge.TakeUnexplained(all: true));
        merge.PutBack(vmm, hit);
        Assert.False(merge.Forget("vmm"));
        Assert.Equal(HitEvidences.KvmPageFault, Assert.Single(merge.Explain("vmm", Said(7, 1))).Evidence);
        Assert.Empty(merge.TakeUnexplained(all: true));
        Assert.True(merge.Forget("vmm"));
    }

    /// <summary>However the two sources interleave.</summary>
    [Fact]
    [Trait("Invariant", "I8")]
    public void Count_OfAPage_IsTheLargerOfTheTwoSources() => Gen.OneOf(
        Gen.Const((Kind: 0, Count: 1L)),
        Gen.Long[1, 5].Select(count => (Kind: 1, Count: count)),
        Gen.Const((Kind: 2, Count: 0L))).List[0, 60].Sample(steps =>
    {
        var merge = new HitMerge<string>(_time);
        long seen = 0, said = 0, hits = 0;
        foreach (var (kind, count) in steps)
        {
            switch (kind)
            {
                case 0:
                    merge.Saw("vmm", 7, HitAccesses.Read, 0, HitEvidences.KvmPageFault);
                    seen++;
                    break;
                case 1:
                    hits += merge.Explain("vmm", Said(7, count)).Sum(hit => hit.Count);
                    said += count;
                    break;
                default:
                    hits += merge.TakeUnexplained(all: true).Sum(item => item.Access.Count);
                    break;
            }
        }

        hits += merge.TakeUnexplained(all: true).Sum(item => item.Access.Count);
        Assert.Equal(Math.Max(seen, said), hits);
    });

    private static ObservedAccess Said(long frame, long count, int? vcpu = 0) =>
        new(frame, HitAccesses.Unknown, vcpu, HitEvidences.Vmm, HitOutcomes.MceInjected, count, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch);
}
