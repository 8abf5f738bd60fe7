using Microsoft.EntityFrameworkCore;

namespace Fleet.Data.Storage;

public sealed class StoreOptions
{
    /// <summary>Folder that holds fleet.db and store.epoch; absolute.</summary>
    public string Folder { get; set; } = "data";

    /// <summary>Last word on the context of the writer; tests put interceptors here.</summary>
    public Action<DbContextOptionsBuilder>? ConfigureWriter { get; set; }

    /// <summary>As above, for the readers.</summary>
    public Action<DbContextOptionsBuilder>? ConfigureReader { get; set; }

    public string DatabasePath => Path.Combine(Folder, "fleet.db");

    public string EpochPath => Path.Combine(Folder, "store.epoch");

    public string LockPath => Path.Combine(Folder, "store.lock");
}
