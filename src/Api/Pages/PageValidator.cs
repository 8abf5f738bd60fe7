using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Pages;

namespace Fleet.Api.Pages;

internal static class PageValidator
{
    public const int MaximumPages = 10_000;
    public const int MaximumReason = 1000;

    /// <param name="layout">The VM's memory, when it is known; without it everything else is checked.</param>
    public static Problem? Validate(AddPagesRequest request, MemoryLayout? layout = null)
    {
        if (request.Pages.Count > MaximumPages)
        {
            return new Problem(ProblemTypes.TooManyPages, $"{request.Pages.Count} pages; at most {MaximumPages} a request.");
        }

        var errors = new ValidationErrors();
        CheckReason(request.Reason, "$.reason", errors);
        for (var index = 0; index < request.Pages.Count; index++)
        {
            Check(request.Pages[index], $"$.pages[{index}]", layout, errors);
        }

        return errors.ToProblem();
    }

    public static void CheckPage(long frame, int shift, string path, ValidationErrors errors, MemoryLayout? layout = null)
    {
        if (!FrameMath.IsPageShift(shift))
        {
            errors.Add($"{path}.shift", "12, 21 or 30.");
        }
        else if (frame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.frame", "Not a guest frame number (4 KiB units, below 2^40).", ProblemTypes.FrameOutsideMemory);
        }
        else if (!FrameMath.IsAligned(frame, shift))
        {
            errors.Add($"{path}.frame", $"Must be a multiple of {FrameMath.FramesOf(shift)}, the frames of a page of this shift.", ProblemTypes.PageUnaligned);
        }
        else if (layout?.Contains(frame, shift) == false)
        {
            errors.Add($"{path}.frame", "Not wholly inside one region of the VM's memory.", ProblemTypes.FrameOutsideMemory);
        }
    }

    public static void CheckReason(string? reason, string path, ValidationErrors errors)
    {
        if (reason?.Length > MaximumReason)
        {
            errors.Add(path, $"At most {MaximumReason} characters.");
        }
    }

    private static void Check(PageReport? page, string path, MemoryLayout? layout, ValidationErrors errors)
    {
        if (page is null)
        {
            errors.Add(path, "Must not be null.");
            return;
        }

        CheckPage(page.Frame, page.Shift, path, errors, layout);
        if (page.Class is not null && !PageClasses.IsValid(page.Class))
        {
            errors.Add($"{path}.class", "srar, srao, ucna or unknown.");
        }

        if (page.Source is not null && !PageSources.IsValid(page.Source))
        {
            errors.Add($"{path}.source", "vmm, memory-failure, operator or import.");
        }
    }
}
