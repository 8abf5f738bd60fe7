namespace Fleet.TinyVmm.Memory;

/// <summary>What guest RAM is made of.</summary>
public enum MemoryBacking
{
    /// <summary>A memfd for each region, mapped shared.</summary>
    Memfd,

    /// <summary>Private anonymous memory.</summary>
    Anonymous,

    /// <summary>A memfd of 2 MiB pages for each region, mapped shared, its pages reserved (vm.nr_hugepages).</summary>
    Hugetlb,
}
