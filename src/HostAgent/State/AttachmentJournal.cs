using System.Text.Json;
using Fleet.HostAgent.Attach;
using Fleet.Linux;

namespace Fleet.HostAgent.State;

/// <summary>Which VMMs are attached and what may be armed in them, on disk; one file for each VM.</summary>
public sealed class AttachmentJournal(StateFolder folder)
{
    public IReadOnlyList<AttachmentRecord> Load() =>
        [.. Directory.EnumerateFiles(folder.Attached, "*.json").Select(Read)];

    public AttachmentRecord? Find(string vm) => File.Exists(PathOf(vm)) ? Read(PathOf(vm)) : null;

    /// <summary>Durable when it returns.</summary>
    public void Save(Attachment attachment)
    {
        var record = new AttachmentRecord(
            attachment.Vm,
            attachment.MemoryInstance,
            attachment.Vmm,
            attachment.UserfaultfdNumber,
            [.. attachment.Layout.Regions.Select(region => new RegionRecord(
                region.GuestPhysicalAddress,
                region.Bytes,
                region.HostVirtualAddress,
                region.PageBytes,
                region.Backing.Number,
                region.Backing.Identity?.Inode ?? 0,
                region.Backing.Offset,
                region.Backing.Kind,
                region.Backing.Identity?.Device))],
            attachment.Trapped.Ranges,
            attachment.HasBarrier,
            attachment.IncomingFor,
            attachment.Undelivered.Ranges,
            attachment.MayHaveRun,
            attachment.Reported.Ranges,
            attachment.WholeRegions);
        DurableFile.Write(PathOf(attachment.Vm), JsonSerializer.SerializeToUtf8Bytes(record, StateJson.Default.AttachmentRecord));
    }

    public void Remove(string vm) => DurableFile.Delete(PathOf(vm));

    private static AttachmentRecord Read(string path)
    {
        using var file = File.OpenRead(path);
        return JsonSerializer.Deserialize(file, StateJson.Default.AttachmentRecord)
            ?? throw new InvalidDataException($"{path} is empty; it was written by another program");
    }

    private string PathOf(string vm) => Path.Combine(folder.Attached, $"{vm}.json");
}
