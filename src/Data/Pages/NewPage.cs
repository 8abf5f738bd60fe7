using Fleet.Data.Entities;

namespace Fleet.Data.Pages;

/// <summary>A page to be poisoned; aligned and inside the VM's memory, which the caller has checked.</summary>
public sealed record NewPage(long Frame, int Shift, string Class, string Source, string? FirstHost, long DetectedAt)
{
    internal PoisonedPageRow ToRow(VmRow vm) => new()
    {
        Vm = vm.Id,
        Frame = Frame,
        Shift = Shift,
        Class = Class,
        Source = Source,
        FirstHost = FirstHost,
        DetectedAt = DetectedAt,
        MemoryInstance = vm.MemoryInstance,
    };
}

/// <param name="Added">Pages that were new.</param>
/// <param name="Already">Pages that were in the set, or covered by a larger one, before.</param>
public sealed record AddedPages(int Added, int Already);
