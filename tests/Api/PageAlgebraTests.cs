using CsCheck;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Tests;

public sealed class PageAlgebraTests
{
    // Frames near the borders of 2 MiB and 1 GiB pages, few enough that pages meet.
    private static readonly Gen<NewPage> GenPage = Gen.Select(Gen.Int[0, 5], Gen.Int[0, 2], Gen.Int[0, 2], Gen.Int[0, 2])
        .Select((size, giga, mega, place) =>
        {
            var shift = size switch { < 3 => 12, < 5 => 21, _ => 30 };
            var small = place == 2 ? 511 : place;
            var frame = FrameMath.PageFrame((giga * 262144L) + (mega * 512L) + small, shift);
            return new NewPage(frame, shift, "unknown", "operator", null, 0);
        });

    private static readonly Gen<Step> GenStep = Gen.Frequency(
        (4, GenPage.Array[1, 6].Select(pages => new Step(pages, null))),
        (1, GenPage.Select(page => new Step([], page.Frame))));

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Set_UnderRandomAddsAndClears_EqualsTheBruteForceModel()
    {
        await using var store = await TestStore.StartAsync();
        var round = 0;
        await GenStep.Array[1, 12].SampleAsync(
            async steps =>
            {
                var vm = $"vm-{Interlocked.Increment(ref round)}";
                var last = (await store.AddVmAsync(vm)).Generation;
                var model = new Model();
                foreach (var step in steps)
                {
                    var expected = model.Apply(step);
                    var (added, already, row) = await ApplyAsync(store, vm, step);
                    var pages = await store.ReadAsync(db => db.Pages.Where(page => page.Vm == vm).OrderBy(page => page.Frame).ToListAsync());

                    Assert.Equal(model.Pages, pages.Select(page => new PageKey(page.Frame, page.Shift)));
                    Assert.Equal(expected, (added, already));
                    Assert.Equal(pages.Count, row.PoisonedPages);
                    Assert.True(row.Generation >= last);
                    Assert.Equal(model.Changed, row.Generation > last);
                    last = row.Generation;
                }
            },
            iter: 120,
            threads: 1);
    }

    [Fact]
    public async Task Deltas_FoldedFromAnyGeneration_LeadToThePresentSet()
    {
        await using var store = await TestStore.StartAsync();
        var round = 0;
        await GenStep.Array[1, 10].SampleAsync(
            async steps =>
            {
                var vm = $"vm-{Interlocked.Increment(ref round)}";
                var row = await store.AddVmAsync(vm);
                var history = new List<(long Generation, List<PageKey> Pages)> { (row.Generation, []) };
                foreach (var step in steps)
                {
                    row = (await ApplyAsync(store, vm, step)).Row;
                    history.Add((row.Generation, await PagesAsync(store, vm)));
                }

                var resource = ChangeResources.Vm(vm);
                foreach (var (from, pages) in history)
                {
                    var fold = new DeltaFold();
                    foreach (var payload in await store.ReadAsync(db => db.Changes
                        .Where(change => change.Resource == resource && change.Revision > from
                            && (change.Kind == ChangeKinds.PagesAdded || change.Kind == ChangeKinds.PagesCleared))
                        .OrderBy(change => change.Revision).Select(change => change.Payload).ToListAsync()))
                    {
                        fold.Apply(PagePayload.Parse(payload!));
                    }

                    Assert.All(fold.Cleared, page => Assert.Contains(page, pages));
                    Assert.All(fold.Added, page => Assert.DoesNotContain(page, pages));
                    Assert.Equal(history[^1].Pages, pages.Except(fold.Cleared).Concat(fold.Added).OrderBy(page => page.Frame));
                }
            },
            iter: 40,
            threads: 1);
    }

    [Fact]
    public async Task Add_ManyPagesAcrossChunks_CountsEachOnce()
    {
        await using var store = await TestStore.StartAsync();
        await store.AddVmAsync();
        var pages = Enumerable.Range(0, 10_000).Select(number => new NewPage(number * 3, 12, "unknown", "operator", null, 0)).ToArray();

        Assert.Equal((10_000, 0), await CountsAsync(store, pages));
        Assert.Equal((0, 10_000), await CountsAsync(store, pages));
        var large = Enumerable.Range(0, 59).Select(number => new NewPage(number * 512, 21, "unknown", "operator", null, 0)).ToArray();
        Assert.Equal((59, 0), await CountsAsync(store, large));
        Assert.Equal(59, (await PagesAsync(store, "vm-1")).Count);
    }

    private static async Task<(int Added, int Already)> CountsAsync(TestStore store, NewPage[] pages)
    {
        var (added, already, _) = await ApplyAsync(store, "vm-1", new Step(pages, null));
        return (added, already);
    }

    private static Task<List<PageKey>> PagesAsync(TestStore store, string vm) =>
        store.ReadAsync(db => db.Pages.Where(page => page.Vm == vm).OrderBy(page => page.Frame).Select(page => new PageKey(page.Frame, page.Shift)).ToListAsync());

    private static Task<(int Added, int Already, VmRow Row)> ApplyAsync(TestStore store, string vm, Step step) => store.WriteAsync(async scope =>
    {
        var row = (await scope.Db.Vms.FindAsync(vm))!;
        if (step.Clear is not { } frame)
        {
            var added = await PoisonedSet.AddAsync(scope, row, step.Add, "test", null);
            return (added.Added, added.Already, row);
        }

        if (await PoisonedSet.FindCoveringAsync(scope.Db, vm, frame) is { } page && page.Frame == frame)
        {
            PoisonedSet.Clear(scope, row, page, "test", "test");
        }

        return (0, 0, row);
    });

    private sealed record Step(NewPage[] Add, long? Clear);

    /// <summary>Nothing but a list and the rules.</summary>
    private sealed class Model
    {
        private readonly List<PageKey> _pages = [];

        public IEnumerable<PageKey> Pages => _pages.OrderBy(page => page.Frame);

        public bool Changed { get; private set; }

        public (int Added, int Already) Apply(Step step)
        {
            var before = Pages.ToList();
            if (step.Clear is { } frame)
            {
                _pages.RemoveAll(page => page.Frame == frame);
            }

            var already = 0;
            foreach (var page in step.Add)
            {
                if (_pages.Exists(other => FrameMath.Covers(other.Frame, other.Shift, page.Frame, page.Shift)))
                {
                    already++;
                    continue;
                }

                _pages.RemoveAll(other => FrameMath.Covers(page.Frame, page.Shift, other.Frame, other.Shift));
                _pages.Add(new PageKey(page.Frame, page.Shift));
            }

            Changed = !before.SequenceEqual(Pages);
            return (step.Add.Length - already, already);
        }
    }
}
