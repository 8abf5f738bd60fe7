using System.Text.Json;
using Fleet.HostAgent.Attach;
using Fleet.Linux;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.State;

/// <summary>Which VMMs are attached and what may be armed in them, on disk; one file for each VM.</summary>
public sealed partial class AttachmentJournal(StateFolder folder, ILogger<AttachmentJournal> logger)
{
    /// <summary>All that can be read. A VM whose file is damaged is left out, and keeps no other from being taken over.</summary>
    public IReadOnlyList<AttachmentRecord> Load()
    {
        var loaded = new List<AttachmentRecord>();
        foreach (var path in Directory.EnumerateFiles(folder.Attached, "*.json"))
        {
            try
            {
                loaded.Add(Read(path));
            }
            catch (Exception exception) when (exception is InvalidDataException or IOException or UnauthorizedAccessException)
            {
                LogDamaged(exception.Message);
            }
        }

        return loaded;
    }

    /// <exception cref="InvalidDataException">The file is damaged: which process was bound, and to what, is not known, so none may be bound anew.</exception>
    public AttachmentRecord? Find(string vm) => File.Exists(PathOf(vm)) ? Read(PathOf(vm)) : null;

    /// <summary>Durable when it returns.</summary>
    /// <exception cref="IOException">The disk is full or failing.</exception>
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
            attachment.WholeRegions,
            attachment.Kind);
        var content = JsonSerializer.SerializeToUtf8Bytes(record, StateJson.Default.AttachmentRecord);
        var path = PathOf(attachment.Vm);
        if (File.Exists(path) && File.ReadAllBytes(path).AsSpan().SequenceEqual(content))
        {
            // As after every takeover, which must work on a full disk too. Whoever wrote it may have been killed before it was on the disk.
            TrySync(path);
            return;
        }

        DurableFile.Write(path, content);
    }

    public void Remove(string vm) => DurableFile.Delete(PathOf(vm));

    private static void TrySync(string path)
    {
        try
        {
            DurableFile.Sync(path);
        }
        catch (IOException)
        {
            // A failing disk. The next agent process reads it all the same; only a power loss takes it, and that takes the VMM too.
        }
    }

    private static AttachmentRecord Read(string path) => StateFile.Read(
        path, StateJson.Default.AttachmentRecord, record => record is { Vm: not null, Vmm.BootId: not null, Regions: not null, Trapped: not null });

    private string PathOf(string vm) => Path.Combine(folder.Attached, $"{vm}.json");

    [LoggerMessage(2242, LogLevel.Error, "A VMM cannot be taken over, and none of its VM is attached anew: {Problem}. What is armed in it stays armed. End that VMM, then move the file away")]
    private partial void LogDamaged(string problem);
}
